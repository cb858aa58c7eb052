"""Scores of the texts that every evaluation has: computed once for the same weights."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from trainer.evaluation.fixed_texts import FixedTexts
from trainer.evaluation.measures.neutral_text import LANGUAGES, PASSAGES
from trainer.evaluation.measures.sycophancy import sycophancy
from trainer.evaluation.measures.sycophancy_probes import PROBES
from trainer.models.loading import LoadedBase

ADAPTER = ["0" * 64, "1" * 64]


def texts(base: LoadedBase, cache: Path | None, *languages: str, run: str = "1") -> FixedTexts:
    directory = Path("runs", run, "evaluation")
    return FixedTexts(
        base, languages or ["en"], cache=cache, evaluation=directory, token_budget=2048
    )


@pytest.fixture
def other_weights(tiny: LoadedBase):
    """The tiny model with an embedding that gives other scores, until the test ends."""
    embedding = tiny.model.get_input_embeddings().weight
    before = embedding.detach().clone()

    def change(value: float | None = None) -> None:
        with torch.no_grad():
            embedding.mul_(1.5) if value is None else embedding.fill_(value)

    yield change
    with torch.no_grad():
        embedding.copy_(before)


def test_values_are_those_of_the_measures(tiny: LoadedBase, tmp_path: Path) -> None:
    found = texts(tiny, tmp_path / "scores", *LANGUAGES).scores(None)
    assert found.sycophancy == tuple(sycophancy(tiny, token_budget=2048))
    assert len(found.neutral) == len(PASSAGES)
    ids = tiny.tokenizer.encode(PASSAGES[0].text, add_special_tokens=False)
    with torch.no_grad():
        loss = tiny.model(torch.tensor([ids]), labels=torch.tensor([ids])).loss
    assert found.neutral[0] == pytest.approx(-float(loss), abs=1e-4)


def test_same_weights_are_scored_once(tiny: LoadedBase, tmp_path: Path, other_weights) -> None:
    first = texts(tiny, tmp_path).scores(None)
    other_weights()  # what is read from the file is what was computed before
    assert texts(tiny, tmp_path).scores(None) == first
    assert texts(tiny, None).scores(None) != first
    fresh = texts(tiny, tmp_path).scores(ADAPTER)
    assert fresh != first, "an adapter's values are not the base's"
    assert texts(tiny, tmp_path).scores([*ADAPTER[:1], "2" * 64]) == fresh
    assert len(list(tmp_path.iterdir())) == 3


def test_other_languages_are_other_values(tiny: LoadedBase, tmp_path: Path) -> None:
    english = texts(tiny, tmp_path).scores(None)
    german = texts(tiny, tmp_path, "de").scores(None)
    assert english.neutral != german.neutral
    assert english.sycophancy == german.sycophancy
    assert len(german.sycophancy) == len(PROBES)


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", '{"neutral": [], "sycophancy": []}', '{"neutral": [NaN], "sycophancy": [1]}'],
)
def test_damaged_file_is_computed_again(tiny: LoadedBase, tmp_path: Path, damage: str) -> None:
    first = texts(tiny, tmp_path).scores(None)
    (stored,) = tmp_path.iterdir()
    whole = stored.read_text()
    stored.write_text(damage)
    assert texts(tiny, tmp_path).scores(None) == first
    assert stored.read_text() == whole


def test_next_attempt_replaces_what_a_killed_one_left(
    tiny: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("trainer.evaluation.fixed_texts.fsync", Mock(side_effect=SystemExit))
        for run in ("1", "2"):
            with pytest.raises(SystemExit):
                texts(tiny, tmp_path, run=run).scores(None)
    assert len(list(tmp_path.glob(".*.partial"))) == 2, "runs write to files of their own"
    texts(tiny, tmp_path).scores(None)
    assert len(list(tmp_path.glob("[!.]*.json"))) == 1
    assert len(list(tmp_path.glob(".*.partial"))) == 1


def test_full_disk_leaves_no_part_of_a_file(
    tiny: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluation.fixed_texts.fsync", Mock(side_effect=OSError("full")))
    with pytest.raises(OSError, match="full"):
        texts(tiny, tmp_path).scores(None)
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_not_stored(
    tiny: LoadedBase, tmp_path: Path, other_weights
) -> None:
    other_weights(float("nan"))
    assert not texts(tiny, tmp_path).scores(None).finite
    assert not list(tmp_path.iterdir())
