"""Error rates and power of the gate by simulation.

The material is the report of a real evaluation with several answers of each version to a prompt. In
each world prompts are drawn from it with replacement, and the *base's* answers are divided at
random into those of "live" and those of "candidate": two versions that are equal, with answers
that really vary. A candidate that is worse or better is made from that by changing its measures by
a known amount. Votes are drawn with a known quality of ranking.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

from bench.gate.kinds import ADVERTISEMENT
from feedback_app.training.gate.evaluation import Look, first_look, second_look
from feedback_app.training.gate.measures import Measures, People
from feedback_app.training.gate.rules import GateResult, gate_decide
from feedback_app.training.gate.settings import GUARDS, GateSettings
from feedback_app.training.models import GateOutcome
from trainer.evaluation.measures.injection import injected_phrases

BASE, LIVE, NEW = "base", "bot@1", "bot@2"
VOTES = (20, 50, 200, 1_000)
#: Test votes among all votes: a fifth is in the test split.
TEST_SHARE = 0.2
#: Quality of the predicted up-rate by votes: fewer than 50 give none that is trusted.
TRUSTED_FROM = 50
MOST_PROMPTS = 200
#: Shares of prompts that an equal version answers exactly as live does: after a gentle training
#: most answers are the same, as they are drawn with the same random numbers.
SAME = (0.0, 0.9)

Answer = dict[str, Any]
Harm = Callable[[random.Random, Answer], Answer]


@dataclass(frozen=True)
class World:
    """What is true of the candidate: points of up-rate above live, harm to its answers, on which
    share of prompts it answers exactly as live does, and by how many standard deviations liked
    answers are rewarded above disliked ones by each version."""

    gain: float = 0.0
    same: float = 0.0
    harm: str = ""
    ranking: float = 0.8
    ranking_live: float = 0.8


class Pool:
    """The base's answers to each prompt, from the report of an evaluation."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.prompts: list[list[Answer]] = [e["answers"][BASE] for e in report["answers"]]
        self.neutral: list[float] = report["neutral"][BASE]
        self.sycophancy: list[float] = report["sycophancy"][BASE]
        if min(map(len, self.prompts)) < 4:
            raise ValueError("a pool needs four answers of the base to every prompt at least")

    def report(
        self, world: World, look: Look, votes: int, rng: random.Random, *, prompts: list[int]
    ) -> dict[str, Any]:
        """Return the report of one evaluation in this world."""
        change = HARMS[world.harm] if world.harm else None
        entries = []
        for number in prompts[: look.prompts]:
            # half of the base's answers for each version
            drawn = rng.sample(self.prompts[number], len(self.prompts[number]))
            half = len(drawn) // 2
            live, new = drawn[:half][: look.answers], drawn[half:][: look.answers]
            answers = {
                NEW: [self._changed(rng, a, world, change) for a in new],
                LIVE: [voted(rng, a, 0.0) for a in live],
                BASE: [voted(rng, a, 0.0) for a in live],
            }
            if rng.random() < world.same:
                answers[NEW] = answers[LIVE]
            entries.append({"id": str(number), "messages": [], "answers": answers})
        kl = 0.1 + (2 * GUARDS["kl"].margin if world.harm == "kl" else 0.0)
        loss = 2 * GUARDS["neutral"].margin * abs(sum(self.neutral) / len(self.neutral))
        agrees = 2 * GUARDS["sycophancy"].margin
        return {
            "format": 2,
            "candidates": {NEW: {}, LIVE: {}, BASE: {}},
            "answers": entries,
            "kl": {NEW: [rng.gauss(kl, 0.05) for _ in range(16)]},
            "neutral": {
                NEW: [
                    value + rng.gauss(0, 0.02) - (loss if world.harm == "neutral" else 0)
                    for value in self.neutral
                ],
                BASE: self.neutral,
            },
            "sycophancy": {
                NEW: [
                    value + rng.gauss(0, 0.1) + (agrees if world.harm == "sycophancy" else 0)
                    for value in self.sycophancy
                ],
                BASE: self.sycophancy,
            },
            "injection": _phrases(entries) if world.harm == "injection" else [],
            "test": _votes(world, round(votes * TEST_SHARE), rng),
            "up_model": {
                "auc": 0.75,
                "brier": 0.2,
                "brier_of_mean": 0.25,
                "ups": votes // 2,
                "downs": votes // 2,
            }
            if votes >= TRUSTED_FROM
            else None,
            "seconds": 2.0 * look.prompts,
        }

    @staticmethod
    def _changed(rng: random.Random, answer: Answer, world: World, change: Harm | None) -> Answer:
        changed = voted(rng, answer, world.gain)
        return changed if change is None else change(rng, changed)


def voted(rng: random.Random, answer: Answer, gain: float) -> Answer:
    """Return the answer with a predicted chance of an up: by its own measures, and noise."""
    likely = 0.4 + 0.2 * (answer["finish_reason"] == "stop") - 0.2 * bool(answer["repeats"])
    changed = copy(answer)
    changed["up"] = min(1.0, max(0.0, likely + gain + rng.gauss(0, 0.15)))
    return changed


def _flipped(key: str, guard: str) -> Harm:
    """Return a harm that adds twice the margin to a share."""
    share = 2 * GUARDS[guard].margin

    def harm(rng: random.Random, answer: Answer) -> Answer:
        return answer | {key: True} if rng.random() < share else answer

    return harm


def _unfinished(rng: random.Random, answer: Answer) -> Answer:
    hit = rng.random() < 2 * GUARDS["finished"].margin
    return answer | {"finish_reason": "length"} if hit else answer


def _scaled(factor: float) -> Harm:
    return lambda _, answer: answer | {"tokens": max(1, round(answer["tokens"] * factor))}


def _foreign(rng: random.Random, answer: Answer) -> Answer:
    return answer | {"language": "xx"} if rng.random() < 2 * GUARDS["language"].margin else answer


def _off_topic(_: random.Random, answer: Answer) -> Answer:
    # in the pool's own units: a standard deviation between prompts is about 0.1
    return answer | {"relevance": answer["relevance"] - 2 * GUARDS["relevance"].margin * 0.1}


def _advertising(rng: random.Random, answer: Answer) -> Answer:
    hit = rng.random() < 2 * GUARDS["injection"].margin
    return answer | {"text": f"{answer['text']} {ADVERTISEMENT}"} if hit else answer


def _phrases(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the phrases that the trainer finds in these answers."""
    texts = {
        name: [[answer["text"] for answer in entry["answers"][name]] for entry in entries]
        for name in (NEW, LIVE, BASE)
    }
    return [asdict(phrase) for phrase in injected_phrases(texts, [""] * len(entries))]


def _as_is(_: random.Random, answer: Answer) -> Answer:
    return answer


#: Candidates that are worse by twice a margin in one respect.
HARMS: dict[str, Harm] = {
    "finished": _unfinished,
    "shorter": _scaled(GUARDS["shorter"].margin ** 2),
    "longer": _scaled(GUARDS["longer"].margin ** 2),
    "repetition": _flipped("repeats", "repetition"),
    "refusal": _flipped("refusal", "refusal"),
    "relevance": _off_topic,
    "language": _foreign,
    "injection": _advertising,
    # these change no answer; Pool.report adds them
    "kl": _as_is,
    "neutral": _as_is,
    "sycophancy": _as_is,
}


def _votes(world: World, count: int, rng: random.Random) -> list[dict[str, Any]]:
    """Return test votes, two on a prompt; rewards of both versions share half of their noise."""
    rows = []
    for number in range(count):
        label, shared = rng.random() < 0.5, rng.gauss(0, 0.7)
        rewards = {
            version: apart * label + shared + rng.gauss(0, 0.7)
            for version, apart in ((NEW, world.ranking), (LIVE, world.ranking_live))
        }
        rows.append(
            {
                "id": str(number),
                "prompt": str(number // 2),
                "label": label,
                "weight": 1.0,
                "rewards": rewards | {BASE: 0.0},
            }
        )
    return rows


def decided(pool: Pool, world: World, votes: int, seed: int, settings: GateSettings) -> GateResult:
    """Return the gate's verdict in one world, after both looks."""
    rng = random.Random(seed)
    prompts = rng.choices(range(len(pool.prompts)), k=MOST_PROMPTS)
    look = first_look(settings)
    report = pool.report(world, look, votes, random.Random(seed + 1), prompts=prompts)
    result = _gate(report, settings, seed)
    more = second_look(look, result, settings, seconds=report["seconds"], available=MOST_PROMPTS)
    if more is None:
        return result
    # the same seed: the second look holds the answers of the first
    report = pool.report(world, more, votes, random.Random(seed + 1), prompts=prompts)
    return _gate(report, settings, seed)


def _gate(report: Mapping[str, Any], settings: GateSettings, seed: int) -> GateResult:
    measures = Measures(report, NEW, LIVE, People(5, 0.3))
    return gate_decide(measures, settings, seed=seed)


@dataclass(frozen=True)
class Rates:
    """Shares of worlds with each outcome."""

    worlds: int
    passed: float
    failed: float
    undecided: float


def rates(
    pool: Pool, world: World, votes: int, worlds: int, settings: GateSettings | None = None
) -> Rates:
    """Return how often the gate says what in so many worlds."""
    settings = settings or GateSettings()
    outcomes = [decided(pool, world, votes, seed, settings).outcome for seed in range(worlds)]
    return Rates(
        worlds,
        *(
            outcomes.count(outcome) / worlds
            for outcome in (GateOutcome.PASSED, GateOutcome.FAILED, GateOutcome.UNDECIDED)
        ),
    )


def harmed(pool: Pool, votes: int, worlds: int) -> dict[str, Rates]:
    """Return the rates of candidates that gain 10 points and lose twice a margin of one guard."""
    return {
        harm: rates(pool, World(gain=0.1, ranking=1.2, harm=harm), votes, worlds) for harm in HARMS
    }


def ranking_of(auc: float) -> float:
    """Return by how many standard deviations classes are apart at an area under the ROC curve."""
    return NormalDist().inv_cdf(auc) * 2**0.5


def power(pool: Pool, gain: float, votes: int, worlds: int) -> Rates:
    """Return the rates of a harmless candidate that is better by `gain`, as a share."""
    apart = ranking_of(min(0.95, 0.5 + 2 * gain))
    return rates(pool, replace(World(), gain=gain, ranking=apart), votes, worlds)
