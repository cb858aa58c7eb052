"""A project in every state that pages can show: runs, releases, a chat, imports and more."""

from datetime import timedelta

from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.adjudication.services import adjudication_decide, adjudication_request
from feedback_app.feedback.gold.pauses import pause_lift
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.imports.services import import_claim, import_execute, import_start
from feedback_app.feedback.imports.uploads import import_upload
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.models import (
    ChangeReport,
    Comparison,
    Conversation,
    FixedAnswer,
    Release,
    ShareLink,
    TrafficSplit,
    Turn,
)
from feedback_app.serving.share_links.services import link_create, link_revoke
from feedback_app.serving.traffic_splits.services import SETTLE, votes_count
from feedback_app.serving.version_diff.services import prompts_fix, version_diff_request
from feedback_app.training.influence.groups import Group, Result
from feedback_app.training.models import (
    Adapter,
    InfluenceReport,
    Run,
    RunMetric,
    RunNote,
    Sweep,
    VersionPush,
)
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_end, run_finish, run_note, run_request
from tests.serving.traffic_splits.split_votes import vote_on
from tests.training.gate.reports import gate_report

LONG = (
    "First of all, **read** the label.\n\n1. Boil `water`.\n2. Stir.\n\n"
    "| step | minutes |\n|---|---|\n| boil | 9 |\n\n```\nprint('done')\n```\n\n> Taste it.\n\n"
)


def furnish(project: Project, admin: User, annotator: User) -> None:
    """Create run 1 (gate lost), 2 (won, live), 3 (failed), 4 (running), and a conversation."""
    finish(claimed(run_request(project=project, by=admin)), up=0.45)
    won = finish(claimed(run_request(project=project, by=admin)), up=0.8)
    failed = claimed(run_request(project=project, by=admin))
    curves(failed.row, 9)
    run_end(claim=failed, status=Run.Status.FAILED, error="The loss is NaN: lower the rate.")
    working = claimed(run_request(project=project, by=admin))
    curves(working.row, 12)
    working.heartbeat(phase="training", progress_done=12, progress_total=30, eta_seconds=130)
    run_note(run=working.row, text="Two prompts were cut.", level=RunNote.Level.WARNING)
    since = timezone.now() - timedelta(days=1)
    Release.objects.create(
        project=project, adapter=None, live=False, until=since, reason="Back", released_by=admin
    )
    Release.objects.create(project=project, adapter=won, released_by=None)
    Project.objects.filter(pk=project.pk).update(live_version=won.name)
    project.refresh_from_db()
    splits(project, admin)
    share_links(project, admin)
    changes(project, lost=project.adapters.get(gate_won=False), won=won)
    influence(project, lost=project.adapters.get(gate_won=False), won=won)
    pushes(project.adapters.get(gate_won=True), project.adapters.get(gate_won=False))
    chat(project, admin, version=won.name)
    comparisons(project, admin, versions=("base", won.name))
    imports(project, admin)
    sweep(project, admin)


def sweep(project: Project, admin: User) -> None:
    """A sweep over two settings, of which one trial was stopped early and one runs."""
    snapshot = project.runs.order_by("pk")[0].snapshot
    made = Sweep.objects.create(
        project=project,
        number=1,
        snapshot=snapshot,
        method=Sweep.Method.RANDOM,
        space={"learning_rate": {"low": 1e-5, "high": 1e-3}, "lr_schedule": ["linear", "cosine"]},
        max_hours=6,
        forecast={"minutes": 42.0, "cost": 1.4},
        requested_by=admin,
    )
    statuses = ["trained", "trained", "trained", "stopped", "running"]
    last = project.runs.order_by("-number")[0].number
    for at, status in enumerate(statuses, 1):
        shape = "cosine" if at % 2 else "linear"
        config = RunConfig(learning_rate=1e-5 * 3**at, lr_schedule=shape)
        Run.objects.create(
            project=project,
            number=last + at,
            snapshot=snapshot,
            sweep=made,
            evaluates=False,
            config=config.as_json(),
            trigger=Run.Trigger.SWEEP,
            requested_by=admin,
            status=status,
            probes=None if status == "running" else [[5, 0.6, 0.6], [10, 0.5 + at / 50, 0.7]],
            heartbeat_at=timezone.now(),
            started_at=timezone.now(),
            progress_done=3,
            progress_total=10,
        )


def splits(project: Project, admin: User) -> None:
    """Create one split stopped as worse, and one that is running."""
    lost = project.adapters.get(gate_won=False)
    for status, ours, lives in (("worse", "-" * 20, "+" * 20), ("running", "++-" * 4, "+--" * 8)):
        ended = None if status == "running" else timezone.now()
        split = TrafficSplit.objects.create(
            project=project,
            candidate=lost,
            live_version=project.live_version,
            percent=30,
            status=status,
            reason="It earned fewer thumbs up than live, 40 votes." if ended else "",
            started_by=admin,
            ended_at=ended,
        )
        vote_on(split, candidate=True, verdicts=ours)
        vote_on(split, candidate=False, verdicts=lives)
        votes_count(split=split, now=timezone.now() + SETTLE)


def changes(project: Project, *, lost: Adapter, won: Adapter) -> None:
    """Create a complete version diff for the winner, and one that waits for an engine."""
    fixed = prompts_fix(project)
    report = version_diff_request(adapter=won, by=None)
    ChangeReport.objects.filter(pk=won.pk).update(previous=lost.name, status="done")
    words = "The rice is ready after twelve minutes; let it rest before you serve it."
    for prompt in fixed:
        for version, text in (
            ("base", LONG + "word " * 60),
            (lost.name, words),
            (
                won.name,
                words.replace("twelve minutes", f"{prompt.position} minutes, or a bit more"),
            ),
        ):
            FixedAnswer.objects.create(
                fixed_prompt=prompt,
                version=version,
                conditions=report.conditions,
                text=text,
                finish_reason="length" if version == "base" else "stop",
            )
    version_diff_request(adapter=lost, by=None)
    ChangeReport.objects.filter(pk=lost.pk).update(
        status="running", done=7, total=40, heartbeat_at=timezone.now()
    )


def influence(project: Project, *, lost: Adapter, won: Adapter) -> None:
    """Create a report on the winner with long names and a measured group, and one at work."""
    people = project.memberships.order_by("pk").values_list("user", flat=True)
    keys = {
        "person": [str(pk) for pk in people],
        "topic": ["", LONG[:60], "<b>billing</b>"],
        "source": ["annotate", "demo", "import"],
        "week": ["2026-W47", "2026-W48"],
    }
    groups = {
        kind: [
            Group(key, votes=1234, examples=987, estimate=0.02 * (place - 1)).__dict__
            | {"run": lost.run.number if place == 0 and kind == "person" else None}
            for place, key in enumerate(known)
        ]
        for kind, known in keys.items()
    }
    result = Result(["step 20", "step 30", "step 36"], 64, 5000, 12345).as_json()
    InfluenceReport.objects.create(adapter=won, status="done", result=result | {"groups": groups})
    Run.objects.filter(pk=won.run_id).update(probes=[[8, 0.4821, None]])
    Run.objects.filter(pk=lost.run_id).update(probes=[[8, 0.4637, None]])
    InfluenceReport.objects.create(
        adapter=lost,
        status="running",
        phase="influence, step 20",
        done=120,
        total=640,
        heartbeat_at=timezone.now(),
    )


def pushes(won: Adapter, lost: Adapter) -> None:
    """Create a push that has ended and one that has failed, with long names."""
    VersionPush.objects.create(
        adapter=won,
        destination="hf://acme-research-department/support-answers-for-tablets",
        status="done",
        url="https://hub.example/acme-research-department/support-answers-for-tablets/commit/"
        + "a" * 40,
        finished_at=timezone.now(),
    )
    VersionPush.objects.create(
        adapter=lost,
        destination="s3://models/prospect/" + "folder/" * 20 + "end",
        status="failed",
        error="The artifact store <b>cannot</b> be reached or refuses access (NoSuchBucket).",
        finished_at=timezone.now(),
    )


def share_links(project: Project, admin: User) -> None:
    """Create an open, a revoked and an expired link."""
    for label in ("Board meeting", "Customers who asked for a look at it", "Last week"):
        link, _ = link_create(
            project=project,
            label=label,
            choice="live",
            days=7,
            messages_limit=300,
            messages_each=30,
            votes_limit=50,
            by=admin,
        )
        if label == "Last week":
            ShareLink.objects.filter(pk=link.pk).update(expires_at=timezone.now())
    link_revoke(link=project.share_links.get(label="Board meeting"), by=admin)


def imports(project: Project, admin: User) -> None:
    """Create an import in preview, a queued one, one done with refused rows; and one with its own
    columns and labels."""
    rows = [
        '{"prompt": "How long does rice take?", "completion": "Twelve minutes.", "label": true}',
        '{"prompt": "Why?", "chosen": "' + "Because. " * 40 + '", "rejected": "No."}',
        '{"prompt": "Only a question?"}',
        '{"prompt": "<script>alert(1)</script>", "completion": "<b hx-get=/>", "label": "maybe"}',
    ]
    for status in ("preview", "done", "queued"):
        file = SimpleUploadedFile(f"{status}.jsonl", "\n".join(rows).encode())
        job = import_upload(project=project, by=admin, upload=file)
        if status != "preview":
            import_start(job=job, by=admin)
        if status == "done":
            claim = import_claim(job.pk)
            assert claim is not None
            import_execute(claim)
    strange = b"id,question,reply,score\n1,Why?,Because.,fine\n2,Really?,No.,bad\n"
    import_upload(project=project, by=admin, upload=SimpleUploadedFile("own-names.csv", strange))


def quality(project: Project, admin: User, annotator: User) -> None:
    """Create answers with two votes; two gold items that the annotator judged wrongly, so that
    they are paused; and another pause lifted without restoring its votes."""
    Project.objects.filter(pk=project.pk).update(gold_every=20, gold_window=2)
    other = User.objects.create_user("carl@example.com", name="Carl Careful of the night shift")
    member_set(project=project, user=other, role=Role.ANNOTATOR)
    for number, completion in enumerate(project.completions.filter(votes__user=annotator)[8:28]):
        for by in (admin, other):
            torn = number in (4, 7, 8) and by == other
            verdict = Verdict.UP if torn or number % 3 == 0 else Verdict.DOWN
            vote_cast(completion=completion, verdict=verdict, by=by, source=Source.DEMO)
    torn = project.completions.filter(contested=True)
    adjudication_decide(completion=torn[0], verdict=Verdict.UP, why="Honest. " * 9, by=admin)
    vote_cast(
        completion=torn[1],
        verdict=Verdict.DOWN,
        by=annotator,
        source=Source.ANNOTATE,
        reasons=["long", "wrong"],
        comment="It goes on and on. " * 5,
    )
    for completion in project.completions.filter(contested=False, vote_count=3)[:2]:
        adjudication_request(completion=completion, why="It fits badly in run 2.", by=admin)
    for round_ in range(2):
        for completion in project.completions.filter(gold=False, vote_count=1)[:2]:
            vote_undo(completion=completion, by=annotator, source=Source.ANNOTATE)
            gold_mark(completion=completion, verdict=Verdict.UP, why="Honest. " * 20, by=admin)
            vote_cast(
                completion=completion, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE
            )
        if round_ == 0:
            pause_lift(pause=project.pauses.get(), by=admin, restore=False)


def claimed(run: Run) -> RunClaim:
    claim = run_claim(run.pk)
    assert claim is not None
    return claim


def curves(run: Run, steps: int) -> None:
    """Make the rewards of both classes fall below −1, so that the page shows a warning."""
    RunMetric.objects.bulk_create(
        RunMetric(
            run=run,
            step=step,
            loss=0.5 - step / 100,
            kl=0.0,
            kl_unclamped=-step / 4,
            reward_desirable=-step / 8,
            reward_undesirable=-step / 4,
            completion_tokens=60,
            learning_rate=2e-4,
            grad_norm=1.0,
            seconds=6.5,
        )
        for step in range(1, steps + 1)
    )


def finish(claim: RunClaim, *, up: float) -> Adapter:
    """End a run whose version earns a share of `up` by the predicted up-rate; the base half."""
    name = claim.row.project.adapter_name(claim.row.number)
    curves(claim.row, 20)

    report = gate_report(name, up=up)
    for number, entry in enumerate(report["answers"]):
        for version, text in ((name, LONG), ("base", "On and on")):
            for answer in entry["answers"][version]:
                answer["text"] = f"{text} {number}"
    items = claim.row.snapshot.items.filter(split="train").order_by("pk")
    fit = {item.completion_id: ((number % 9) - 3.0, 0.2) for number, item in enumerate(items)}
    adapter = run_finish(
        claim=claim,
        path=f"adapters/{name}",
        sha256="0" * 64,
        report=report,
        fit=fit,
    )
    assert adapter is not None
    return adapter


def chat(project: Project, user: User, *, version: str) -> Conversation:
    """Create two answered turns, one with a thumb, and one that failed."""
    conversation = Conversation.objects.create(project=project, user=user, title="A long talk")
    for position, text in enumerate((LONG, "word " * 80)):
        question = f"What about step {position}?"
        completion = said(
            project, question, text, version=version, finish="stop" if position else "length"
        )
        Turn.objects.create(
            conversation=conversation,
            position=position,
            user_message=question,
            completion=completion,
        )
    vote_cast(completion=completion, verdict=Verdict.DOWN, by=user, source=Source.DEMO)
    Turn.objects.create(
        conversation=conversation,
        parent=conversation.turns.get(position=0),
        user_message="What about another step? " * 20,
        completion=said(
            project, "What about another step?", "| a | b |\n|-|-|\n| 1 | 2 |", version=version
        ),
    )
    Turn.objects.create(
        conversation=conversation,
        position=2,
        user_message="Are you there?",
        error="The engine does not answer.",
    )
    return conversation


def said(
    project: Project, question: str, text: str, *, version: str, finish: str = "stop"
) -> Completion:
    return completion_create(
        project=project,
        prompt=prompt_get_or_create(
            project=project,
            messages=[{"role": "user", "content": question}],
            source=Source.DEMO,
        ),
        answer=Answer(text, version, finish, None, None),
        source=Source.DEMO,
    )


def comparisons(project: Project, user: User, *, versions: tuple[str, str]) -> None:
    """Create a judged comparison, one ready to be judged, and one with a failed side."""
    question = "Which is right? " + "אני שואל שאלה מימין לשמאל. " * 4
    for choice, error in (("right", ""), ("", ""), ("", "The engine does not answer.")):
        Comparison.objects.create(
            project=project,
            user=user,
            question=question,
            left_version=versions[0],
            right_version=versions[1],
            left=said(project, question, LONG * 3 + "ש" * 900, version=versions[0]),
            right=None if error else said(project, question, "a" * 3_000, version=versions[1]),
            right_error=error,
            choice=choice,
        )
