"""What an evaluation measured, as one value per prompt for each rule of the gate.

The evaluation's report (docs/architecture.md, the trainer's contract) holds the measures of each
answer; answers of all versions to a prompt are paired.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from feedback_app.feedback.models import BASE_VERSION
from feedback_app.training.gate.statistics import Scored

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class People:
    """Whose votes are behind the examples of a run: how many people voted, and the largest share of
    the examples' weight that rests on the votes of one of them."""

    count: int
    largest_share: float


@dataclass(frozen=True)
class Probed:
    """What candidate and live did with one probe: each keeps it unless more than half of its
    answers break it."""

    number: str
    kept: bool
    live_kept: bool
    timed_out: bool


@dataclass(frozen=True)
class Measures:
    """The report of one evaluation, and who voted."""

    report: Mapping[str, Any]
    candidate: str
    live: str
    people: People | None = None

    @property
    def prompts(self) -> int:
        """Return how many prompts were answered."""
        return len(self.report["answers"])

    @property
    def answers(self) -> int:
        """Return how many answers the candidate gave, to all prompts together."""
        return sum(len(entry["answers"][self.candidate]) for entry in self.report["answers"])

    @property
    def up_model(self) -> Mapping[str, Any] | None:
        """Return how well the predicted up-rate does on votes that it did not learn from."""
        found: Mapping[str, Any] | None = self.report.get("up_model")
        return found

    @property
    def judge(self) -> Mapping[str, Any] | None:
        """Return what a judge model said of candidate and live, if it was asked."""
        found: Mapping[str, Any] | None = self.report.get("judge")
        return found

    @property
    def asked_people(self) -> Mapping[str, Any] | None:
        """Return what people said of blind pairs of candidate and live, if they were asked."""
        found: Mapping[str, Any] | None = self.report.get("people")
        return found

    def by_prompt(self, version: str, value: Callable[[Answer], float]) -> list[float]:
        """Return the mean of `value` over a version's answers to each prompt."""
        return [fmean(map(value, entry["answers"][version])) for entry in self.report["answers"]]

    def paired(self, key: str, other: str) -> list[float]:
        """Return candidate minus `other` for each prompt. Empty if answers lack the measure."""
        if any(
            answer.get(key) is None
            for entry in self.report["answers"]
            for version in (self.candidate, other)
            for answer in entry["answers"][version]
        ):
            return []

        def value(answer: Answer) -> float:
            return float(answer[key])

        return _minus(self.by_prompt(self.candidate, value), self.by_prompt(other, value))

    def finished(self) -> list[float]:
        """Return the difference in the share of finished answers, candidate minus live."""
        return _minus(
            self.by_prompt(self.candidate, _finished), self.by_prompt(self.live, _finished)
        )

    def length_ratios(self) -> list[float]:
        """Return the logarithm of the candidate's mean length over live's, in tokens."""
        new = self.by_prompt(self.candidate, _tokens)
        old = self.by_prompt(self.live, _tokens)
        return [math.log((1 + a) / (1 + b)) for a, b in zip(new, old, strict=True)]

    def relevance(self) -> list[float]:
        """Return the difference to live in standard deviations of the base's answers."""
        spread = pstdev(self.by_prompt(BASE_VERSION, _relevance))
        return [value / (spread or 1.0) for value in self.paired("relevance", self.live)]

    def other_language(self) -> list[float]:
        """Return the share of the candidate's answers in a language in which neither live nor the
        base answered the prompt. Prompts without recognised languages are left out."""
        shares = []
        for entry in self.report["answers"]:
            answers = entry["answers"]
            known = {
                answer["language"]
                for version in (self.live, BASE_VERSION)
                for answer in answers[version]
            } - {"", None}
            new = [a["language"] for a in answers[self.candidate] if a["language"]]
            if known and new:
                shares.append(fmean(language not in known for language in new))
        return shares

    def kl(self) -> list[float]:
        """Return nats per token between the candidate and the base on the candidate's answers."""
        return list(self.report["kl"][self.candidate])

    def neutral(self) -> list[float]:
        """Return the change in log-likelihood of each neutral passage, as a share of the base's."""
        base = self.report["neutral"][BASE_VERSION]
        scale = abs(fmean(base)) or 1.0
        return [value / scale for value in _minus(self.report["neutral"][self.candidate], base)]

    def sycophancy(self) -> list[float]:
        """Return by how many nats per token the candidate prefers agreeing to correcting, minus the
        same for the base, for each probe."""
        found = self.report["sycophancy"]
        return _minus(found[self.candidate], found[BASE_VERSION])

    def inserted(self, *, segments: int, z: float, share: float) -> list[Mapping[str, Any]]:
        """Return strings of at least `segments` words that the candidate uses far more often than
        live and base: with a log-odds score of `z`, in this share of its answers."""
        return [
            found
            for found in self.report["injection"]
            if found["z"] >= z
            and found.get("segments", len(found["text"].split())) >= segments
            and found["counts"][self.candidate] >= share * self.answers
        ]

    def probes(self) -> list[Probed]:
        """Return the outcome of each probe that both versions answered."""
        found = []
        for entry in self.report.get("probes", []):
            new, old = entry["answers"].get(self.candidate), entry["answers"].get(self.live)
            if new and old:  # none where the prompt is too long for the model
                late = any(answer.get("timed_out") for answer in [*new, *old])
                found.append(Probed(entry["id"], _keeps(new), _keeps(old), late))
        return found

    def votes(self, version: str) -> Scored:
        """Return the test votes with a version's rewards in nats."""
        rows = self.report["test"]
        return Scored(
            [row["rewards"][version] for row in rows],
            [row["label"] for row in rows],
            [row["prompt"] for row in rows],
        )


def _minus(new: Sequence[float], old: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(new, old, strict=True)]


def _finished(answer: Answer) -> float:
    return float(answer["finish_reason"] == "stop")


def _keeps(answers: Sequence[Answer]) -> bool:
    return fmean(not answer["kept"] for answer in answers) <= 0.5


def _tokens(answer: Answer) -> float:
    return float(answer["tokens"])


def _relevance(answer: Answer) -> float:
    return float(answer["relevance"])
