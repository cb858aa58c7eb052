"""How far follow-ups agree with votes on the same answers, and whether they count.

A follow-up is a guess at a verdict. It becomes a training example only while its guesses agree with
what people have said about the same answers: enough of them, and beyond chance.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from feedback_app.feedback.models import FollowUp, Project, Verdict, Vote

#: The newest follow-ups that are looked at.
READ = 5_000
#: The least answers with both a follow-up and votes, and the least lower end of κ's interval.
LEAST_SHARED, LEAST_KAPPA = 50, 0.4
#: Standard errors on each side of a 95 % interval.
SIDES = 1.96

#: Verdicts of follow-ups and of votes on one answer: whether each is an up.
Both = tuple[bool, bool]


@dataclass(frozen=True)
class Kappa:
    """Cohen's κ with a 95 % interval over `shared` answers; None where it is undefined."""

    shared: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class KindAgreement:
    """Follow-ups of one kind: answers that have it, those with votes too, and how many of these
    the votes agree with."""

    label: str
    speaks_for: bool
    answers: int
    shared: int
    agreed: int

    @property
    def share(self) -> float | None:
        return self.agreed / self.shared if self.shared else None


@dataclass(frozen=True)
class Agreement:
    """The figures of a project's newest follow-ups."""

    enabled: bool
    kappa: Kappa
    kinds: list[KindAgreement]

    @property
    def counts(self) -> bool:
        """Whether follow-ups become training examples."""
        return self.enabled and not self.reason

    @property
    def reason(self) -> str:
        """Why they do not agree enough; empty if they do."""
        if self.kappa.shared < LEAST_SHARED:
            return (
                f"{LEAST_SHARED} answers with a follow-up and votes are needed, and there are "
                f"{self.kappa.shared}."
            )
        if self.kappa.low is None:
            return "All verdicts are the same: agreement cannot be distinguished from chance."
        if self.kappa.low < LEAST_KAPPA:
            return f"The lower end of κ must be at least {LEAST_KAPPA:.2f}."
        return ""


def follow_up_agreement(project: Project) -> Agreement:
    """Return how far the project's newest follow-ups agree with votes, in two queries."""
    kinds = kinds_by_answer(project)
    votes = vote_majorities(kinds)
    both = [
        (said, votes[answer])
        for answer, found in kinds.items()
        if answer in votes and (said := verdict_of(found)) is not None
    ]
    return Agreement(
        enabled=project.follow_ups,
        kappa=kappa_of(both),
        kinds=[_kind(kind, kinds, votes) for kind in FollowUp.Kind],
    )


def kinds_by_answer(project: Project) -> dict[int, set[str]]:
    """Return the kinds of the newest follow-ups, by answer."""
    rows = FollowUp.objects.filter(project=project).order_by("-pk")
    found: dict[int, set[str]] = defaultdict(set)
    for answer, kind in rows.values_list("completion", "kind")[:READ]:
        found[answer].add(kind)
    return dict(found)


def verdict_of(kinds: Iterable[str]) -> bool | None:
    """Return the verdict that follow-ups on one answer hint at, True for up; None for a tie."""
    balance = sum(1 if kind in FollowUp.FOR else -1 for kind in kinds)
    return None if balance == 0 else balance > 0


def vote_majorities(answers: Iterable[int]) -> dict[int, bool]:
    """Return the majority of the votes on answers, True for up; ties are left out."""
    balance: Counter[int] = Counter()
    votes = Vote.objects.standing().filter(completion__in=list(answers))
    for answer, verdict in votes.values_list("completion", "verdict"):
        balance[answer] += 1 if verdict == Verdict.UP else -1
    return {answer: value > 0 for answer, value in balance.items() if value}


def _kind(
    kind: FollowUp.Kind, kinds: Mapping[int, set[str]], votes: Mapping[int, bool]
) -> KindAgreement:
    answers = [answer for answer, found in kinds.items() if kind in found]
    shared = [votes[answer] for answer in answers if answer in votes]
    speaks_for = kind in FollowUp.FOR
    agreed = sum(up == speaks_for for up in shared)
    return KindAgreement(str(kind.label), speaks_for, len(answers), len(shared), agreed)


def kappa_of(both: Sequence[Both]) -> Kappa:
    """Return Cohen's κ (1960) of two verdicts on each answer.

    The interval is that of the large-sample variance (Fleiss, Cohen and Everitt 1969, Eq. 13) of
    the table with half an answer more in each cell, without which a small table without a
    disagreement would look certain.
    """
    table = Counter(both)
    value = _kappa([[table[a, b] for b in (True, False)] for a in (True, False)])
    if value is None:
        return Kappa(len(both))
    smoothed = [[table[a, b] + 0.5 for b in (True, False)] for a in (True, False)]
    half = SIDES * math.sqrt(_variance(smoothed))
    return Kappa(len(both), value, max(-1.0, value - half), min(1.0, value + half))


def _kappa(table: Sequence[Sequence[float]]) -> float | None:
    observed, chance, _, _ = _shares(table)
    return None if chance >= 1 else (observed - chance) / (1 - chance)


def _shares(
    table: Sequence[Sequence[float]],
) -> tuple[float, float, list[float], list[float]]:
    """Return observed and chance agreement, and the shares of rows and columns; chance is 1 for an
    empty table."""
    total = sum(map(sum, table))
    if not total:
        return 0.0, 1.0, [0.0, 0.0], [0.0, 0.0]
    rows = [sum(row) / total for row in table]
    columns = [sum(column) / total for column in zip(*table, strict=True)]
    observed = (table[0][0] + table[1][1]) / total
    return observed, sum(r * c for r, c in zip(rows, columns, strict=True)), rows, columns


def _variance(table: Sequence[Sequence[float]]) -> float:
    """Return the large-sample variance of κ."""
    total = sum(map(sum, table))
    observed, chance, rows, columns = _shares(table)
    same = sum(
        table[i][i] / total * ((1 - chance) - (rows[i] + columns[i]) * (1 - observed)) ** 2
        for i in range(2)
    )
    other = (1 - observed) ** 2 * sum(
        table[i][1 - i] / total * (columns[i] + rows[1 - i]) ** 2 for i in range(2)
    )
    rest = (observed * chance - 2 * chance + observed) ** 2
    return max(0.0, (same + other - rest) / (total * (1 - chance) ** 4))
