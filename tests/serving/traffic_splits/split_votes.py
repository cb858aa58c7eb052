"""Votes on both sides of a split, without an engine."""

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Source, Verdict
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.models import Assignment, AssignmentAnswer, TrafficSplit


def vote_on(split: TrafficSplit, *, candidate: bool, verdicts: str, by: User | None = None) -> None:
    """Create conversations on one side, each with an answer and a vote: `+` is up.

    Each vote is another person's, unless all are `by` one.
    """
    begun = split.assignments.filter(candidate=candidate).count()
    for number, verdict in enumerate(verdicts, begun):
        side = " of the candidate" if candidate else ""
        voter = by or User.objects.create_service(name=f"Reader {number + 1}{side}")
        version = split.candidate.name if candidate else split.live_version
        assignment = Assignment.objects.create(
            split=split, key=f"{candidate}{number}", candidate=candidate, percent=split.percent
        )
        answer = completion_create(
            project=split.project,
            prompt=prompt_get_or_create(
                project=split.project,
                messages=[{"role": "user", "content": f"Question {number}?"}],
                source=Source.DEMO,
            ),
            answer=Answer("An answer.", version, "stop", None, None),
            source=Source.DEMO,
        )
        AssignmentAnswer.objects.create(
            assignment=assignment, completion=answer, end="whole", seconds=1.0, first_seconds=0.4
        )
        vote_cast(
            completion=answer,
            verdict=Verdict.UP if verdict == "+" else Verdict.DOWN,
            by=voter,
            source=Source.DEMO,
        )
