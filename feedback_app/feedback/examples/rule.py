"""The rule by which the votes on a completion amount to an example, or to none."""

from collections.abc import Sequence
from dataclasses import dataclass

from feedback_app.feedback.models import Completion, Example, Verdict


@dataclass(frozen=True)
class ExampleValues:
    """What votes amount to: the fields of an Example that they decide."""

    desirable: bool
    weight: float


def values_of_votes(verdicts: Sequence[str], *, text: str) -> ExampleValues | None:
    """The rule: the majority decides, agreement is the weight; None for a tie or an empty text."""
    ups = verdicts.count(Verdict.UP)
    downs = len(verdicts) - ups
    # an empty answer teaches nothing: there is no token to score
    if ups == downs or not text.strip():
        return None
    return ExampleValues(desirable=ups > downs, weight=abs(ups - downs) / len(verdicts))


def example_values(completion: Completion, verdicts: Sequence[str]) -> ExampleValues | None:
    """What a completion amounts to: what somebody decided, or else what these votes say."""
    if completion.decided and completion.text.strip():
        return ExampleValues(desirable=completion.decided == Verdict.UP, weight=1)
    return values_of_votes(verdicts, text=completion.text)


def example_of(completion: Completion, verdicts: Sequence[str]) -> Example | None:
    """The Example, not stored yet, that a completion and its verdicts amount to."""
    amounts = example_values(completion, verdicts)
    if amounts is None:
        return None
    return Example(
        completion=completion,
        project_id=completion.project_id,
        desirable=amounts.desirable,
        weight=amounts.weight,
        split=completion.prompt.split,
    )
