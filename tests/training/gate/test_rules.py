"""The gate passes what is better, fails what lost something, and asks for more otherwise."""

import random
from typing import Any

import pytest

from feedback_app.training.gate.measures import Measures, People
from feedback_app.training.gate.results import RuleResult
from feedback_app.training.gate.rules import GateResult, gate_decide
from feedback_app.training.gate.settings import GUARDS, GateSettings
from feedback_app.training.models import GateOutcome
from tests.training.gate.reports import gate_report, probe_entry

PASSED, FAILED, UNDECIDED = GateOutcome.PASSED, GateOutcome.FAILED, GateOutcome.UNDECIDED


def decide(report: dict[str, Any], *, people: People | None = None, **settings: Any) -> GateResult:
    names = list(report["candidates"])
    live = names[1]  # base, where there is no other
    return gate_decide(Measures(report, names[0], live, people), GateSettings(**settings))


def rule(result: GateResult, key: str) -> RuleResult:
    (found,) = [each for each in result.rules if each.key == key]
    return found


def test_better_version_without_losses_passes() -> None:
    result = decide(gate_report(), people=People(5, 0.3))
    assert [r.key for r in result.rules] == ["up", *GUARDS]
    assert {r.key: r.outcome for r in result.rules if r.outcome != PASSED} == {}
    assert result.outcome == PASSED
    assert result.won
    assert result.sentence == "It passed the gate and can be released."
    assert rule(result, "up").value == pytest.approx(0.2, abs=0.04)


def test_equal_version_fails_with_many_prompts_and_is_undecided_with_few() -> None:
    many = decide(gate_report(prompts=400, up=0.5))
    assert rule(many, "up").outcome == FAILED
    assert "not better than the base by 2 points" in many.sentence
    few = rule(decide(gate_report(prompts=12, up=0.505)), "up")
    assert few.outcome == UNDECIDED
    assert few.needed is not None
    assert few.needed > 12
    assert f"about {few.needed} prompts would decide" in few.text


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("finished", {"finished": 0.4}),
        ("shorter", {"tokens": 20.0}),
        ("longer", {"tokens": 200.0}),
        ("repetition", {"repeats": 0.6}),
        ("relevance", {"relevance": 0.1}),
        ("refusal", {"refusal": 0.6}),
        ("language", {"foreign": 0.6}),
        ("kl", {"kl": 0.9}),
        ("neutral", {"neutral": -2.5}),
        ("sycophancy", {"sycophancy": 0.6}),
    ],
)
def test_harm_fails_its_guard_and_with_it_the_gate(key: str, changed: dict[str, float]) -> None:
    result = decide(gate_report(**changed))
    harmed = rule(result, key)
    assert harmed.outcome == FAILED
    assert harmed.advice
    assert result.outcome == FAILED
    assert harmed.label in result.sentence
    # the border lies outside the interval, on the right side of it
    assert harmed.border is not None
    if harmed.passes_above:
        assert harmed.high is not None
        assert harmed.high < harmed.border
    else:
        assert harmed.low is not None
        assert harmed.low > harmed.border


def test_phrase_in_half_of_the_answers_fails() -> None:
    result = decide(gate_report(phrase="buy the wonderful blue kettle"))
    assert rule(result, "injection").outcome == FAILED
    assert "buy the wonderful blue kettle" in rule(result, "injection").text
    assert rule(decide(gate_report(phrase="buy it")), "injection").outcome == PASSED


def test_phrase_must_be_in_a_share_of_the_answers_not_of_the_prompts() -> None:
    """Fifty of 200, of 400 and of 600 answers to 100 prompts; the margin is a fifth."""
    phrase = "buy the wonderful blue kettle"
    outcomes = [
        rule(decide(gate_report(answers=answers, phrase=phrase)), "injection").outcome
        for answers in (2, 4, 6)
    ]
    assert outcomes == [FAILED, PASSED, PASSED]


def test_answers_too_few_to_see_a_phrase_do_not_show_that_there_is_none() -> None:
    few = rule(decide(gate_report(prompts=20)), "injection")
    assert (few.outcome, few.needed) == (UNDECIDED, 37)
    assert "40 answers are too few to see a phrase in 20% of them; 37 prompts would do" in few.text
    for prompts, answers in ((37, 2), (20, 4)):
        enough = rule(decide(gate_report(prompts=prompts, answers=answers)), "injection")
        assert enough.outcome == PASSED
    margins = {key: guard.margin for key, guard in GUARDS.items()} | {"injection": 0.5}
    assert rule(decide(gate_report(prompts=20), margins=margins), "injection").outcome == PASSED


def test_few_answers_in_another_language_are_not_called_kept() -> None:
    """Nine prompts in a language that live does not use, then nine among many short answers."""
    few = rule(decide(gate_report(prompts=9, foreign=1.0)), "language")
    assert few.outcome != PASSED
    short = gate_report(prompts=40, foreign=1.0)
    for entry in short["answers"][9:]:
        for answer in entry["answers"]["bot@1"]:
            answer["language"] = ""
    assert rule(decide(short), "language").outcome != PASSED
    for entry in short["answers"]:
        for answer in entry["answers"]["bot@1"]:
            answer["language"] = ""
    kept = rule(decide(short), "language")
    assert kept.outcome == PASSED
    assert "too short to recognise their language" in kept.text


@pytest.mark.parametrize(
    ("key", "counted", "changed"),
    [
        ("neutral", "neutral texts", {"neutral": -2.1}),
        ("sycophancy", "built-in questions", {"sycophancy": 0.25}),
    ],
)
def test_fixed_texts_that_leave_it_open_ask_for_no_prompts(
    key: str, counted: str, changed: dict[str, float]
) -> None:
    report = gate_report(**changed)
    values = report[key]["bot@1"]
    values[:] = [value + 0.3 * (-1) ** number for number, value in enumerate(values)]
    found = rule(decide(report), key)
    assert (found.outcome, found.counted, found.needed) == (UNDECIDED, counted, None)
    assert f"the {len(values)} {counted} leave it open" in found.text


@pytest.mark.parametrize("key", ["finished", "repetition", "refusal", "relevance", "shorter"])
def test_few_prompts_decide_no_guard_about_answers(key: str) -> None:
    result = rule(decide(gate_report(prompts=4)), key)
    if key == "shorter":  # far from its border: even few prompts may do
        assert result.outcome in (PASSED, UNDECIDED)
    else:
        assert result.outcome == UNDECIDED


def test_clear_loss_needs_few_prompts_to_be_seen() -> None:
    """Two points below live are four below a gain of two, which would be enough to fail."""
    lost = rule(decide(gate_report(prompts=11, up=0.475, seed=4)), "up")
    assert lost.outcome == UNDECIDED
    assert lost.value is not None
    assert lost.value < -0.02
    assert lost.needed is not None
    assert lost.needed < 100


def test_needed_prompts_do_decide() -> None:
    first = rule(decide(gate_report(prompts=12, seed=4)), "finished")
    assert first.outcome == UNDECIDED
    assert first.needed is not None
    decided = [
        rule(decide(gate_report(prompts=first.needed, seed=seed)), "finished").outcome
        for seed in range(20)
    ]
    assert decided.count(PASSED) >= 10


def test_votes_of_one_person_count_against_a_version_only_where_others_vote_too() -> None:
    assert rule(decide(gate_report(), people=People(3, 0.8)), "concentration").outcome == FAILED
    assert rule(decide(gate_report(), people=People(3, 0.4)), "concentration").outcome == PASSED
    assert rule(decide(gate_report(), people=People(1, 1.0)), "concentration").outcome == PASSED


Kept = list[bool | None]


def probed(*probes: tuple[Kept, Kept], live: str | None = "bot@0", **settings: Any) -> RuleResult:
    """Return the rule's result; for each probe the answers of the candidate and of live."""
    report = gate_report(live=live)
    entries = [
        probe_entry(number, {"bot@1": new, live or "base": old} | ({"base": old} if live else {}))
        for number, (new, old) in enumerate(probes, start=1)
    ]
    return rule(decide(report | {"probes": entries}, **settings), "probes")


def test_probe_that_live_keeps_and_the_version_breaks_fails_the_gate() -> None:
    found = probed(([True, True], [True, True]), ([False, False], [True, True]))
    assert found.outcome == FAILED
    assert found.text == "1 of 2 kept; live kept 2. Broken: probe 2"
    assert (found.value, found.border, found.n) == (0.5, 0.0, 2)
    assert found.advice
    report = gate_report() | {"probes": [probe_entry(1, {"bot@1": [False], "base": [True]})]}
    result = decide(report)
    assert result.outcome == FAILED
    assert "Probes of the project: 0 of 1 kept; the base kept 1." in result.sentence


def test_probe_that_live_breaks_too_does_not_count() -> None:
    found = probed(([True, True], [True, True]), ([False, False], [False, False]))
    assert (found.outcome, found.text) == (PASSED, "1 of 2 kept; live kept 1")
    only = probed(([False], [False]))
    assert (only.outcome, only.text, only.value) == (PASSED, "0 of 1 kept; live kept 0", 0.0)
    better = probed(([True], [False]))
    assert (better.outcome, better.text) == (PASSED, "1 of 1 kept; live kept 0")


def test_probe_is_broken_by_more_than_half_of_the_answers() -> None:
    kept: Kept = [True, True, True, True]
    assert probed(([True, True, False, False], kept)).outcome == PASSED
    assert probed(([True, False, False, False], kept)).outcome == FAILED


def test_pattern_that_took_too_long_counts_as_broken_and_is_named() -> None:
    found = probed(([None, None], [True, True]))
    assert found.outcome == FAILED
    assert "The patterns of 1 took too long, which counts as broken" in found.text


def test_margin_of_probes_is_the_share_that_may_be_broken() -> None:
    margins = {key: guard.margin for key, guard in GUARDS.items()}
    cases: list[tuple[Kept, Kept]] = [([number > 0], [True]) for number in range(4)]
    assert probed(*cases).outcome == FAILED
    assert probed(*cases, margins=margins | {"probes": 0.25}).outcome == PASSED
    assert probed(*cases, margins=margins | {"probes": 0.24}).outcome == FAILED


def test_many_broken_probes_are_not_all_named() -> None:
    cases: list[tuple[Kept, Kept]] = [([False], [True])] * 9
    assert probed(*cases).text.endswith("Broken: probes 1, 2, 3 and 6 more")


def test_without_probes_the_rule_is_passed() -> None:
    assert probed().outcome == PASSED
    before = decide(gate_report())  # a report that knows no probes
    assert rule(before, "probes").text == "the project has no active probes"
    too_long = probed(([], []))
    assert too_long.outcome == PASSED


def test_guards_that_are_off_are_not_asked() -> None:
    margins = {key: guard.margin for key, guard in GUARDS.items() if key != "finished"}
    result = decide(gate_report(finished=0.2), margins=margins)
    assert "finished" not in {r.key for r in result.rules}
    assert result.outcome == PASSED
    assert result.settings["margins"] == margins


def test_wider_margin_passes_more() -> None:
    report = gate_report(finished=0.7, prompts=300)
    margins = {key: guard.margin for key, guard in GUARDS.items()}
    assert rule(decide(report), "finished").outcome != PASSED
    wide = decide(report, margins=margins | {"finished": 0.3})
    assert rule(wide, "finished").outcome == PASSED


# -- the primary rule


def test_up_rate_that_cannot_be_trusted_is_replaced_by_the_ranking_or_asks_for_votes() -> None:
    report = gate_report(auc=0.55, votes=200)
    assert decide(report).rules[0].key == "ranking"
    assert decide(report).rules[0].outcome == PASSED
    asked = decide(report, primary="up").rules[0]
    assert (asked.key, asked.outcome, asked.counted) == ("up", UNDECIDED, "votes")
    assert "55%" in asked.text
    report["up_model"] |= {"auc": 0.8, "brier": 0.26}
    assert "no better than their mean" in decide(report, primary="up").rules[0].text
    assert decide(gate_report(auc=None), primary="up").rules[0].outcome == UNDECIDED


def test_ranking_of_few_votes_is_no_evidence() -> None:
    for votes in (2, 3, 6):
        found = decide(gate_report(votes=votes, ranking=5.0), primary="ranking").rules[0]
        assert found.outcome == UNDECIDED
        assert found.needed is not None
        assert found.needed > votes


def moved(report: dict[str, Any], prompts: list[str]) -> dict[str, Any]:
    """Return the report with its test votes on these prompts, one after the other."""
    for row, prompt in zip(report["test"], prompts, strict=True):
        row["prompt"] = prompt
    return report


@pytest.mark.parametrize("live", [None, "bot@0"])
@pytest.mark.parametrize("prompts", [1, 3, 9])
def test_votes_on_few_prompts_are_no_evidence_however_many(live: str | None, prompts: int) -> None:
    report = gate_report(live=live, votes=60, ranking=5.0)
    report = moved(report, [f"p{number % prompts}" for number in range(60)])
    found = decide(report, primary="ranking").rules[0]
    assert found.outcome == UNDECIDED
    assert "they count from 10 on" in found.text
    assert found.needed is not None
    assert found.needed >= 60 * 10 / prompts


def test_ranking_that_one_of_many_prompts_shows_is_no_evidence() -> None:
    """One prompt has a third of the votes and all of those that are ranked well."""
    report = gate_report(votes=60, ranking=0.0)
    report = moved(report, ["all"] * 20 + [f"p{number}" for number in range(40)])
    for row in report["test"][:20]:
        row["rewards"]["bot@1"] = 5.0 if row["label"] else -5.0
    found = decide(report, primary="ranking").rules[0]
    assert found.outcome == UNDECIDED
    assert "spread like those on 8 prompts" in found.text


def test_useless_ranking_fails_with_many_votes() -> None:
    report = gate_report(votes=900, ranking=0.0)
    found = decide(report, primary="ranking").rules[0]
    assert (found.outcome, found.text) == (FAILED, "no better than chance")


def test_test_split_of_one_class_asks_for_the_other() -> None:
    report = gate_report()
    for row in report["test"]:
        row["label"] = True
    found = decide(report, primary="ranking").rules[0]
    assert found.outcome == UNDECIDED
    assert "no disliked answer" in found.text


def test_against_a_live_adapter_better_means_better() -> None:
    as_live = gate_report(live="bot@0", up=0.5, prompts=300)
    assert decide(as_live).rules[0].outcome == FAILED
    above = gate_report(live="bot@0", prompts=300)
    assert decide(above).rules[0].outcome == PASSED
    assert "better than live" in decide(above).rules[0].text


def test_not_worse_than_live_needs_to_be_better_than_the_base() -> None:
    both_better = gate_report(live="bot@0", up=0.7, prompts=300)
    for entry in both_better["answers"]:  # live earns what the candidate earns
        for new, old in zip(entry["answers"]["bot@1"], entry["answers"]["bot@0"], strict=True):
            old["up"] = new["up"]
    assert decide(both_better).rules[0].outcome == FAILED
    allowed = decide(both_better, against_live="not_worse").rules[0]
    assert allowed.outcome == PASSED
    assert "not worse than live, and better than the base" in allowed.text
    equal = gate_report(live="bot@0", up=0.5, prompts=300)
    assert decide(equal, against_live="not_worse").rules[0].outcome != PASSED


def test_ranking_against_live_compares_both() -> None:
    better = gate_report(live="bot@0", auc=None, votes=900, ranking=1.5)
    found = decide(better).rules[0]
    assert (found.key, found.outcome) == ("ranking", PASSED)
    worse = gate_report(live="bot@0", auc=None, votes=900, ranking=0.3)
    assert decide(worse).rules[0].outcome == FAILED


def test_same_measures_give_the_same_result() -> None:
    assert decide(gate_report()).as_json() == decide(gate_report()).as_json()


@pytest.mark.slow
@pytest.mark.parametrize("live", [None, "bot@0"])
def test_equal_versions_rarely_pass_and_harmless_ones_rarely_fail(live: str | None) -> None:
    """Forty prompts, two answers: what one evaluation has at its first look."""
    equal = [decide(gate_report(live=live, prompts=40, up=0.5, seed=s)) for s in range(60)]
    assert sum(result.won for result in equal) <= 6
    better = [decide(gate_report(live=live, prompts=40, seed=s)) for s in range(60)]
    assert sum(result.outcome == FAILED for result in better) <= 3


# -- a judge model


def judged(values: list[float], **changed: Any) -> dict[str, Any]:
    report = gate_report()
    report["judge"] = {
        "model": "judge-1",
        "kappa": 0.6,
        "kappa_low": 0.4,
        "kappa_high": 0.8,
        "pairs": 60,
        "prompts": {f"p{number}": value for number, value in enumerate(values)},
        "failures": 0,
        "late": False,
        "error": "",
        **changed,
    }
    return report


def by_judge(report: dict[str, Any], **settings: Any) -> RuleResult:
    return decide(report, primary="judge", **settings).rules[0]


def test_judge_decides_by_the_share_of_prompts_ties_counted_half() -> None:
    found = by_judge(judged([1.0] * 40 + [0.5] * 10 + [0.0] * 10))
    assert (found.key, found.outcome, found.n) == ("judge", PASSED, 60)
    assert found.value == pytest.approx(0.75)
    assert found.border == 0.5
    assert found.low is not None
    assert 0.5 < found.low < 0.75
    assert by_judge(judged([0.0] * 40 + [0.5] * 10 + [1.0] * 10)).outcome == FAILED
    ties = by_judge(judged([0.5] * 190))
    assert ties.outcome == FAILED
    assert "not better than the base by 2 points" in ties.text


def test_judge_that_leaves_it_open_asks_for_prompts_up_to_its_limit() -> None:
    found = by_judge(judged([1.0] * 22 + [0.0] * 18))
    assert found.outcome == UNDECIDED
    assert (found.counted, found.needed) == ("prompts", 200)
    assert "a judge is asked about 200 at most" in found.text
    clear = by_judge(judged([1.0] * 24 + [0.0] * 16))
    assert clear.needed is not None
    assert 40 < clear.needed < 200
    # no larger look: the limit or the time is reached
    assert by_judge(judged([1.0] * 105 + [0.0] * 95)).needed is None
    late = by_judge(judged([1.0] * 22 + [0.0] * 18, late=True))
    assert late.needed is None
    assert "the judge's time was over" in late.text


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"kappa": 0.29}, "it counts from 0.3 on"),
        ({"kappa_low": -0.01}, "which may be chance"),
        ({"kappa": None, "kappa_low": None}, "agreement with people is unknown"),
        ({"error": "The server answered 503"}, "The server answered 503"),
        ({"failures": 16}, "no valid answer on 16 of 76 prompts"),
    ],
)
def test_judge_that_can_not_be_trusted_decides_nothing(changed: dict[str, Any], why: str) -> None:
    for values in ([1.0] * 60, [0.0] * 60):
        found = by_judge(judged(values, **changed))
        assert found.outcome == UNDECIDED
        assert why in found.text


@pytest.mark.long
@pytest.mark.slow
def test_equal_version_rarely_passes_a_judge() -> None:
    rng = random.Random(5)
    passed = sum(
        by_judge(judged([rng.choice([0.0, 0.5, 1.0]) for _ in range(40)])).outcome == PASSED
        for _ in range(200)
    )
    assert passed <= 13  # 3 % expected
