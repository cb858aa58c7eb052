"""What the report of a version shows: the answers that changed most, and intervals as whiskers."""

from typing import Any

import pytest

from feedback_app.training.gate.report import AXIS, CHANGES_SHOWN, changes, gate_rows
from feedback_app.training.models import Adapter


def entry(number: int, new: list[float | None], live: list[float | None]) -> dict[str, Any]:
    """Return a prompt with the predicted up-rates of both versions' answers."""

    def answers(name: str, ups: list[float | None]) -> list[dict[str, Any]]:
        return [{"text": f"{name}, {up}", "up": up} for up in ups]

    return {
        "id": str(number),
        "messages": [{"role": "user", "content": f"Question {number}?"}],
        "answers": {"bot@2": answers("new", new), "bot@1": answers("live", live)},
    }


def adapter(*entries: dict[str, Any], **rule: Any) -> Adapter:
    return Adapter(
        name="bot@2",
        report={"candidates": {"bot@2": {}, "bot@1": {}, "base": {}}, "answers": list(entries)},
        gate={"opponent": "bot@1", "rules": [rule] if rule else [], "settings": {"margins": {}}},
    )


def test_ten_answers_that_got_better_and_ten_that_got_worse_are_shown() -> None:
    up = [entry(number, [0.5 + number / 100], [0.5]) for number in range(15)]
    down = [entry(20 + number, [0.4 - number / 100], [0.5]) for number in range(15)]
    found = changes(adapter(*up, *down))
    assert found is not None
    assert [change.written for change in found.better] == [f"+{n}" for n in range(14, 4, -1)]
    assert [change.written for change in found.worse] == [f"\u2212{n}" for n in range(24, 14, -1)]
    assert len(found.better) == len(found.worse) == CHANGES_SHOWN
    assert found.worse[0].messages[0]["content"] == "Question 34?"


def test_answers_that_are_farthest_apart_stand_for_their_prompt() -> None:
    found = changes(adapter(entry(1, [0.9, 0.6], [0.5, 0.2]), entry(2, [0.1, 0.4], [0.5, 0.8])))
    assert found is not None
    (better,), (worse,) = found.better, found.worse
    assert (better.new["text"], better.old["text"]) == ("new, 0.9", "live, 0.2")
    assert better.points == pytest.approx(40)
    assert (worse.new["text"], worse.old["text"]) == ("new, 0.1", "live, 0.8")


def test_answers_without_a_prediction_are_no_change() -> None:
    assert changes(adapter(entry(1, [None], [None]))) is None
    same = changes(adapter(entry(1, [0.5], [0.5])))
    assert same is not None
    assert (same.better, same.worse) == ([], [])


@pytest.mark.parametrize(
    ("low", "high", "order"),
    [
        (0.2, 0.8, "border low at high"),
        (-0.4, 0.8, "low border at high"),
        (None, 0.8, "low border at high"),  # an end without a bound is that of the axis
    ],
)
def test_whisker_shows_the_interval_against_its_margin(
    low: float | None, high: float | None, order: str
) -> None:
    rule = {"key": "kl", "label": "Distance", "outcome": "passed", "text": ""}
    (row,) = gate_rows(
        adapter(**rule, value=0.5, low=low, high=high, border=0.0, passes_above=True)
    )
    whisker = row.whisker
    assert whisker is not None
    places = {
        "low": whisker.low,
        "at": whisker.at,
        "high": whisker.high,
        "border": whisker.border,
    }
    assert sorted(order.split(), key=lambda name: places[name] or 0.0) == order.split()
    assert all(0 <= (place or 0.0) <= AXIS for place in places.values())
