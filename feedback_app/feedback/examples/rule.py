"""The rule that turns the votes on a completion into an example, or into none."""

from collections.abc import Sequence
from dataclasses import dataclass

from feedback_app.feedback.models import EDITED_VERSION, Completion, Example, Verdict


@dataclass(frozen=True)
class ExampleValues:
    """The fields of an Example that votes decide."""

    desirable: bool
    weight: float


def values_of_votes(verdicts: Sequence[str], *, text: str) -> ExampleValues | None:
    """Return the majority's label, weighted by agreement; None for a tie or an empty text."""
    ups = verdicts.count(Verdict.UP)
    downs = len(verdicts) - ups
    # an empty answer has no token to score
    if ups == downs or not text.strip():
        return None
    return ExampleValues(desirable=ups > downs, weight=abs(ups - downs) / len(verdicts))


def example_values(completion: Completion, verdicts: Sequence[str]) -> ExampleValues | None:
    """Return the values of a completion's example: the decided verdict, or else its votes'."""
    if completion.decided and completion.text.strip():
        return ExampleValues(desirable=completion.decided == Verdict.UP, weight=1)
    return values_of_votes(verdicts, text=completion.text)


def example_of(completion: Completion, verdicts: Sequence[str]) -> Example | None:
    """Return the unsaved Example of a completion with these verdicts, or None."""
    values = example_values(completion, verdicts)
    own = completion.training_weight
    if values is None or own == 0:
        return None
    weight = values.weight * (1 if own is None else own)
    if completion.version == EDITED_VERSION:
        weight *= completion.project.edited_weight / 100
    return Example(
        completion=completion,
        project_id=completion.project_id,
        desirable=values.desirable,
        weight=weight,
        split=completion.prompt.split,
    )
