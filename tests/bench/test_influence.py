"""The bench of influence in small: a person who votes the opposite is found."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from bench.influence.planted import PEOPLE, planted_ranking

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_person_is_ranked_as_the_most_harmful(tmp_path: Path, seed: int) -> None:
    found = planted_ranking(tmp_path, seed)

    assert found.place == 1
    assert len(found.people) == PEOPLE
    assert found.estimates[found.planted] < 0
