"""Unit tests of the proof: the rule, the parser of pages, the figures, the guards."""

from typing import Any

import pytest
from django.test import Client

from feedback_app.accounts.models import User
from feedback_app.closed_loop.measure import Side, gain, guards, share
from feedback_app.closed_loop.people import ItemParser
from feedback_app.closed_loop.rule import Finding, judge, repeats, words_of
from feedback_app.feedback.models import Project
from tests.conftest import MakeCompletions

QUESTION = "How do I bake bread at home?"
GOOD = "Mix flour, water, yeast and salt, let it rise, and bake the bread for thirty minutes."


def test_rule_accepts_a_short_complete_answer_on_the_topic() -> None:
    finding = judge(question=QUESTION, answer=GOOD, complete=True)
    assert finding.up
    assert finding.reasons == []


@pytest.mark.parametrize(
    ("answer", "ended", "reason"),
    [
        (GOOD.rstrip("."), True, "unfinished"),
        (GOOD, False, "unfinished"),
        (GOOD + " " + "Then eat your bread slowly and enjoy " * 20 + ".", True, "long"),
        ("The capital of France is Paris, of course.", True, "off_topic"),
        ("Bake the bread now. Bake the bread now.", True, "repeats"),
    ],
)
def test_rule_gives_reasons(answer: str, ended: bool, reason: str) -> None:
    finding = judge(question=QUESTION, answer=answer, complete=ended)
    assert not finding.up
    assert reason in finding.reasons


def test_rule_matches_inflections() -> None:
    assert judge(question=QUESTION, answer="Baking takes an hour or so.", complete=True).up


def test_collapsed_answer_is_rejected() -> None:
    collapsed = judge(question=QUESTION, answer="Lemonade & Icecream.", complete=True)
    assert not collapsed.up


def test_four_repeated_words_are_a_repetition() -> None:
    assert repeats(words_of("one two three four, one two three four"))
    assert not repeats(words_of("one two three four two three one"))


@pytest.mark.django_db
def test_parser_finds_the_displayed_item(
    project: Project, annotator: User, client: Client, make_completions: MakeCompletions
) -> None:
    first, _ = make_completions(2)
    first.text = "First **bold** line.\n\n- one\n- two\n\nEnd <b>of</b> it."
    first.save()
    client.force_login(annotator)
    parser = ItemParser()
    parser.feed(client.get(f"/projects/{project.slug}/annotate/").content.decode())
    item = parser.item()
    assert item is not None
    assert item.completion == first.pk
    assert item.question == "Question number 0?"
    assert item.answer == "First bold line. one two End <b>of</b> it."
    assert item.complete


@pytest.mark.django_db
def test_parser_finds_nothing_on_an_empty_page(
    project: Project, annotator: User, client: Client
) -> None:
    client.force_login(annotator)
    parser = ItemParser()
    parser.feed(client.get(f"/projects/{project.slug}/annotate/").content.decode())
    assert parser.item() is None


def side(version: str, ups: list[list[bool]], *, words: int = 40, text: str | None = None) -> Side:
    findings = [[Finding(up, True, True, True, words) for up in group] for group in ups]
    texts = [
        [text or f"{version} {row} {column}" for column, _ in enumerate(group)]
        for row, group in enumerate(ups)
    ]
    return Side(version, findings, texts)


def test_gain_is_significant_only_if_prompts_agree() -> None:
    before = side("base", [[False, False]] * 40)
    risen = gain(before, side("live", [[True, True]] * 20 + [[False, False]] * 20))
    assert risen.value == pytest.approx(0.5)
    assert risen.significant
    assert 0.3 < risen.low < 0.5 < risen.high < 0.7

    same = gain(before, side("live", [[True, False]] + [[False, False]] * 39))
    assert not same.significant


def test_share_has_wilsons_interval() -> None:
    # Wilson for 5 of 10 by hand: centre (5 + 1.92) / (10 + 3.84), half-width 0.2634
    found = share([True] * 5 + [False] * 5)
    assert (found.low, found.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def measures(**changed: float) -> dict[str, Any]:
    new = {"kl_per_token": 0.1, "neutral_logprob": -2.0, **changed}
    return {
        "bot@1": {name: {"value": value} for name, value in new.items()},
        "base": {"kl_per_token": {"value": 0.0}, "neutral_logprob": {"value": -2.0}},
    }


def test_guards_pass_for_an_improved_model() -> None:
    before, after = side("base", [[False]] * 30), side("bot@1", [[True]] * 30)
    held = guards(before=before, after=after, measures=measures(), adapter="bot@1", kl_brake=0.5)
    assert all(guard.held for guard in held)


@pytest.mark.parametrize(
    ("after", "changed", "fallen"),
    [
        (side("bot@1", [[True]] * 30, words=3), {}, "words"),
        (side("bot@1", [[True]] * 30, text="Lemonade & Icecream."), {}, "distinct"),
        (side("bot@1", [[True]] * 30), {"kl_per_token": 0.9}, "kl_per_token"),
        (side("bot@1", [[True]] * 30), {"neutral_logprob": -2.2}, "neutral_logprob"),
    ],
)
def test_guards_fail_for_a_collapsed_model(
    after: Side, changed: dict[str, float], fallen: str
) -> None:
    found = guards(
        before=side("base", [[False]] * 30),
        after=after,
        measures=measures(**changed),
        adapter="bot@1",
        kl_brake=0.5,
    )
    assert [guard.name for guard in found if not guard.held] == [fallen]
