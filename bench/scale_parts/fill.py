"""Fill an empty database with a project of a given size: `python -m bench.scale_parts.fill N`.

shape.py has the numbers and what each row holds. The rows are written by SQL; people, tokens and
the share link through the product's services. The last line of the output is JSON for the client.
"""

import json
import sys
from typing import Any

import django
from django.apps import apps
from django.db import connection, models

django.setup()

from bench.filling import TEXT, insert  # noqa: E402
from bench.scale_parts import shape as s  # noqa: E402
from feedback_app.accounts.models import (  # noqa: E402
    ApiPerson,
    ApiReceipt,
    ApiToken,
    AuditEvent,
    Invitation,
    Membership,
    Role,
    Scope,
    User,
)
from feedback_app.feedback import models as f  # noqa: E402
from feedback_app.feedback.members.services import member_set  # noqa: E402
from feedback_app.feedback.projects.services import project_create  # noqa: E402
from feedback_app.feedback.tokens.services import token_create  # noqa: E402
from feedback_app.serving import models as v  # noqa: E402
from feedback_app.serving.share_links.services import link_create, visitor_create  # noqa: E402
from feedback_app.training.influence.groups import MOST_GROUPS  # noqa: E402
from feedback_app.training.models import (  # noqa: E402
    Adapter,
    InfluenceReport,
    Run,
    RunMetric,
    RunNote,
    Schedule,
    Snapshot,
    SnapshotItem,
    Sweep,
    VersionPush,
)
from feedback_app.training.runs.config import RunConfig  # noqa: E402

#: Ids of annotators begin after this, those of users of the API after the second.
PEOPLE, API_PEOPLE = 1_000, 100_000
SWEEPS = 30
TOKENS = 60  # as many as TEXT has
LONG = TEXT.replace("%", "")
STAFF = ("owner", "admin", "viewer")


def rows(sample: models.Model, count: int, where: str = "TRUE", **varying: str) -> None:
    """Insert rows; the SQL over n may use % freely."""
    given = {column: sql.replace("%", "%%") for column, sql in varying.items()}
    insert(sample, count=count, varying=given, where=where.replace("%", "%%"))


class Filling:
    """One project with all its rows."""

    def __init__(self, completions: int) -> None:
        self.shape = s.Shape(completions)
        self.staff = {role: User.objects.create_user(f"{role}@example.com", "x") for role in STAFF}
        owner = self.staff["owner"]
        self.project = project_create(
            slug=s.SLUG, name="Scale", base_model="bench", owner=owner, guidelines=LONG
        )
        for role in ("admin", "viewer"):
            member_set(project=self.project, user=self.staff[role], role=Role(role))
        # a second project, so that the start page lists both
        project_create(slug="small", name="Small", base_model="bench", owner=owner)
        self.project.overlap = s.OVERLAP
        self.project.votes_per_hour = 0  # the benchmark measures the rate
        self.project.gold_every = 20
        self.project.save()

    def fill(self) -> dict[str, Any]:
        self.people()
        self.completions()
        self.votes()
        self.queue()
        self.runs()
        self.sweeps()
        self.serving()
        self.records()
        secrets = self.secrets()
        sequences_follow()
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        return secrets

    def person(self, n: str) -> str:
        return f"({PEOPLE} + 1 + {n} % {self.shape.people})"

    def voter(self, completion: str, vote: str) -> str:
        return f"({PEOPLE} + 1 + {self.shape.voter(completion, vote)})"

    def people(self) -> None:
        count = self.shape.people
        rows(User(password="!"), count, id=f"n + {PEOPLE}", email="'p' || n || '@example.com'")
        rows(
            Membership(project=self.project, role=Role.ANNOTATOR),
            count,
            id=f"n + {PEOPLE}",
            user_id=f"n + {PEOPLE}",
        )
        count = self.shape.completions // 200
        known = f"n + {API_PEOPLE}"
        mail = "'u' || n || '@service.invalid'"
        rows(User(password="!", is_active=False), count, id=known, email=mail)
        rows(ApiPerson(project=self.project), count, id="n", user_id=known, name="'u' || n")

    def completions(self) -> None:
        shape, project = self.shape, self.project
        asked = "jsonb_build_array(jsonb_build_object('role', 'user', 'content', 'Question ' || n))"
        rows(
            f.Prompt(project=project, messages=[], source=f.Source.IMPORT),
            shape.prompts,
            id="n",
            messages=asked,
            content_hash=s.hashed("prompt"),
            topic="CASE WHEN n % 5 < 3 THEN 'topic ' || n % 40 ELSE '' END",
            split=shape.split("n"),
        )
        count = shape.completions
        sample = f.Completion(
            project=project, text="", finish_reason="stop", token_ids=list(range(2_000, 2_060))
        )
        rows(
            sample,
            count,
            id="n",
            prompt_id=shape.prompt,
            text=f"'Answer ' || n || '. ' || {literal(LONG)}",
            content_hash=s.hashed("completion"),
            version=shape.version,
            version_number=shape.version_number,
            topic="CASE WHEN n % 5 < 3 THEN 'topic ' || n % 40 ELSE '' END",
            source=shape.source,
            queued=f"{shape.source} IN ('import', 'sampled') AND NOT {shape.gold}",
            queue_position=f"(n - 1) / {shape.prompts}",
            vote_count=shape.votes,
            contested=f"{shape.ups} > 0 AND {shape.ups} < {shape.votes}",
            flagged=shape.flagged,
            gold=shape.gold,
            decided=f"CASE WHEN {shape.gold} OR {shape.resolved} THEN 'up' ELSE '' END",
            unsure="CASE WHEN n % 3 = 0 THEN (n::bigint * 7919) % 1000 / 100.0 END",
            created_at=shape.moment("n", count),
        )
        more = f.Completion(
            project=project,
            text=LONG,
            version="base",
            finish_reason="stop",
            source=f.Source.SAMPLED,
            queued=True,
        )
        rows(
            more,
            2 * shape.more,
            id=f"n + {count}",
            prompt_id=shape.prompt,
            content_hash=s.hashed("more"),
            queue_position="2",
            vote_count=f"CASE WHEN n > {shape.more} THEN 2 ELSE 0 END",
            contested=f"n > {shape.more}",
        )
        decided = f"({shape.gold} OR {shape.resolved})"
        rows(
            f.Example(project=project),
            count,
            completion_id="n",
            desirable=f"{decided} OR {shape.ups} * 2 > {shape.votes}",
            weight=f"CASE WHEN {decided} THEN 1 ELSE "
            f"abs({shape.ups} * 2 - {shape.votes})::float / {shape.votes} END",
            split=shape.split(shape.prompt),
            used_in_run=f"CASE WHEN n < {count * 0.98} THEN {shape.runs} END",
            created_at=shape.moment("n", count),
        )

    def votes(self) -> None:
        shape, project, owner = self.shape, self.project, self.staff["owner"]
        completion, vote = shape.vote_completion, shape.vote_position
        source = shape.source.replace("n /", f"{completion} /")
        imported = f"({vote} = 0 AND {source} = 'import')"
        given = {
            "completion_id": completion,
            "user_id": f"CASE WHEN {imported} THEN {owner.pk} ELSE "
            f"{self.voter(completion, vote)} END",
            "verdict": f"CASE WHEN {shape.up(completion, vote)} THEN 'up' ELSE 'down' END",
            "source": f"CASE WHEN {imported} THEN 'import' WHEN {source} IN ('demo', 'api') "
            f"THEN {source} ELSE 'annotate' END",
            "created_at": shape.moment("n", 3 * shape.completions),
        }
        sample = f.Vote(project=project, guidelines_number=1)
        updated = {"updated_at": given["created_at"], "hasty": "n % 50 = 0"}
        rows(sample, 3 * shape.completions, id="n", **given, **updated)
        rows(f.VoteEvent(guidelines_number=1), 3 * shape.completions, id="n", **given)
        tie = {
            "completion_id": f"{shape.completions + shape.more} + (n + 1) / 2",
            "user_id": self.voter("((n + 1) / 2)", "(n % 2)"),
            "verdict": "CASE WHEN n % 2 = 0 THEN 'up' ELSE 'down' END",
            "source": "'annotate'",
        }
        after = f"n + {3 * shape.completions}"
        rows(sample, 2 * shape.more, id=after, **tie)
        rows(f.VoteEvent(guidelines_number=1), 2 * shape.more, id=after, **tie)

    def queue(self) -> None:
        shape, project, admin = self.shape, self.project, self.staff["admin"]
        count = shape.completions
        why = "why"
        rows(
            f.Skip(reason=why),
            count // 50,
            id="n",
            completion_id="n * 50 - 1",
            user_id=f"{PEOPLE} + 1 + (n * 31 + 3) % {shape.people}",
            flag="FALSE",
            created_at=shape.moment("n", count // 50),
        )
        rows(
            f.Skip(reason=why, flag=True),
            count,
            shape.flagged,
            id=f"n + {count}",
            completion_id="n",
            user_id=self.voter("n", "4"),
        )
        rows(
            f.GoldItem(project=project, verdict="up", why=why, by=admin, was_queued=True),
            count,
            shape.gold,
            completion_id="n",
        )
        gold = count // 1_000
        rows(
            f.GoldAnswer(project=project),
            10 * shape.people,
            id="n",
            item_id=f"107 + 1000 * (((n - 1) / {shape.people} + n) % {max(1, gold)})",
            user_id=self.person("n"),
            verdict="CASE WHEN n % 8 = 0 THEN 'down' ELSE 'up' END",
            right="n % 8 <> 0",
            created_at=shape.moment("n", 10 * shape.people),
            where=f"(n - 1) / {shape.people} < {gold}",
        )
        rows(
            f.Adjudication(project=project, open=False, verdict="up", why=why, by=admin),
            count,
            shape.resolved,
            completion_id="n",
            resolved_at=shape.moment("n", count),
        )
        rows(
            f.Adjudication(project=project, open=True, asked=why, asked_by=admin),
            count,
            shape.asked,
            completion_id="n",
            asked_at=shape.moment("n", count),
        )
        rows(
            f.Pause(project=project, right=5, of=10, lifted_by=admin, votes_set_aside=3),
            max(30, shape.people // 10),
            id="n",
            user_id=self.person("n"),
            lifted_at="CASE WHEN n > 5 THEN now() END",
        )

    def sweeps(self) -> None:
        """Sweeps of as many trials as there may be, which have ended."""
        project, runs = self.project, self.shape.runs
        rows(
            Sweep(
                project=project,
                method=Sweep.Method.GRID,
                space={"epochs": [1, 2]},
                max_hours=1,
                forecast={"minutes": 9.0, "cost": None},
                requested_by=self.staff["owner"],
            ),
            SWEEPS,
            id="n",
            number="n",
            snapshot_id="n",
            created_at="now()",
            ended_at="now()",
        )
        rows(
            Run(
                project=project,
                trigger=Run.Trigger.SWEEP,
                status=Run.Status.TRAINED,
                evaluates=False,
                config=RunConfig().as_json(),
                probes=[[10 * step, 0.5, 0.7] for step in range(1, 200)],
            ),
            32 * SWEEPS,
            id=f"{runs + 1} + n",
            number=f"{runs + 1} + n",
            snapshot_id="(n - 1) / 32 + 1",
            sweep_id="(n - 1) / 32 + 1",
            created_at="now()",
            started_at="now()",
            finished_at="now()",
        )

    def runs(self) -> None:
        shape, project, owner = self.shape, self.project, self.staff["owner"]
        runs, versions = shape.runs, shape.versions
        # the newest finished run was requested two days ago
        moment = f"({shape.moment('n', runs)} - interval '2 days')"
        taken = shape.completions * 4 // 10
        rows(
            Snapshot(
                project=project,
                train_up=taken,
                train_down=taken,
                validation_up=9,
                validation_down=9,
                test_up=9,
                test_down=9,
            ),
            runs + 1,
            id="n",
            created_at=moment,
        )
        rows(
            Run(
                project=project,
                trigger=Run.Trigger.PERSON,
                requested_by=owner,
                config=RunConfig().as_json(),
            ),
            runs + 1,
            id="n",
            number="n",
            snapshot_id="n",
            status=f"CASE WHEN n > {runs} THEN 'running' WHEN n % 20 = 0 THEN 'succeeded' "
            "WHEN n % 3 = 0 THEN 'cancelled' ELSE 'failed' END",
            phase="CASE WHEN n % 20 = 0 THEN '' ELSE 'train' END",
            heartbeat_at="now() + interval '1 day'",
            created_at=moment,
            started_at=moment,
            finished_at=f"CASE WHEN n <= {runs} THEN {moment} END",
        )
        rows(
            RunMetric(learning_rate=1e-4, grad_norm=1, seconds=1, completion_tokens=50),
            METRICS * (runs + 1),
            id="n",
            run_id=f"(n - 1) / {METRICS} + 1",
            step=f"(n - 1) % {METRICS} + 1",
            **dict.fromkeys(("loss", "kl", "kl_unclamped"), "0.5"),
            **dict.fromkeys(("reward_desirable", "reward_undesirable"), "0.1"),
        )
        text = "A checkpoint was written."
        rows(RunNote(text=text), 10 * (runs + 1), id="n", run_id="(n - 1) / 10 + 1")
        name = f"'{s.SLUG}@' || 20 * n"
        report = literal(json.dumps(report_of("NAME")))
        gate = {"opponent": "base", "outcome": "passed", "rules": RULES}
        rows(
            Adapter(
                project=project,
                sha256="0" * 64,
                gate_won=True,
                gate_outcome="passed",
                gate=gate,
            ),
            versions,
            id="n",
            run_id="20 * n",
            name=name,
            path=f"'adapters/' || {name}",
            report=f"replace({report}, 'NAME', {name})::jsonb",
            created_at=shape.moment("n", versions),
        )
        items = shape.items
        reward = "((n::bigint * 7919) % 1000 - 350) / 100.0"
        measured = {"reward": reward, "reference_point": "0.2", "margin": f"{reward} - 0.2"}
        rows(
            SnapshotItem(weight=1),
            items * (versions - 1),
            id="n",
            snapshot_id=f"20 * ((n - 1) / {items} + 1)",
            completion_id=f"(n::bigint * 37) % {shape.completions} + 1",
            desirable="n % 3 > 0",
            split=shape.split("n"),
            **measured,
        )
        rows(
            SnapshotItem(weight=1),
            shape.completions,
            f"n < {shape.completions * 0.98}",
            id=f"n + {items * (versions - 1)}",
            snapshot_id=str(runs),
            completion_id="n",
            desirable=f"{shape.ups} * 2 > {shape.votes}",
            split=shape.split(shape.prompt),
            **measured,
        )
        live = f"{s.SLUG}@{runs}"
        f.Project.objects.filter(pk=project.pk).update(live_version=live)
        Schedule.objects.create(project=project, enabled=True, min_new_examples=1_000_000)

    def serving(self) -> None:
        shape, project, viewer = self.shape, self.project, self.staff["viewer"]
        count, versions = shape.completions, shape.versions
        v.Release.objects.all().delete()
        rows(
            v.Release(project=project, released_by=self.staff["owner"]),
            versions,
            id="n",
            adapter_id="n",
            live=f"n = {versions}",
            since=shape.moment("n", versions),
            until=f"CASE WHEN n < {versions} THEN {shape.moment('n + 1', versions)} END",
        )
        user = f"CASE WHEN n % 50 = 0 THEN {viewer.pk} ELSE {self.person('n')} END"
        chats = count // 50
        at = shape.moment("n", chats)
        rows(
            v.Conversation(project=project, title="A conversation"),
            chats,
            id=s.md5_id("chat"),
            user_id=user,
            created_at=at,
            updated_at=at,
        )
        rows(
            v.Turn(position=0, user_message="A question", completion=None),
            chats,
            id="n",
            conversation_id=s.md5_id("chat"),
            completion_id=shape.demo("n"),
        )
        pair = {
            "left_version": f"'{s.SLUG}@' || 20 * (n % {versions} + 1)",
            "right_version": "'base'",
            "choice": "(ARRAY['left', 'right', 'both', 'neither', ''])[n % 5 + 1]",
            "left_id": shape.demo("2 * n"),
            "right_id": shape.demo("(2 * n + 1)"),
        }
        rows(
            v.Comparison(project=project, question="A question"),
            count // 200,
            id=s.md5_id("compare"),
            user_id=f"CASE WHEN n % 4 = 0 THEN {viewer.pk} ELSE {self.person('n')} END",
            created_at=shape.moment("n", count // 200),
            **pair,
        )
        self.splits()
        rows(v.FixedPrompt(project=project), 20, id="n", prompt_id="5 * n", position="n - 1")
        rows(
            v.ChangeReport(previous="base", conditions="x", status="done", done=60, total=60),
            versions,
            adapter_id="n",
        )
        rows(
            InfluenceReport(status="done", result=self.influence()),
            versions,
            adapter_id="n",
        )
        rows(
            VersionPush(destination="s3://models/prospect", status="done", url="s3://models"),
            versions,
            adapter_id="n",
        )
        rows(
            v.FixedAnswer(conditions="x", text=LONG, finish_reason="stop"),
            20 * (versions + 1),
            id="n",
            fixed_prompt_id="n % 20 + 1",
            version=f"CASE WHEN n <= 20 THEN 'base' ELSE '{s.SLUG}@' || 20 * ((n - 1) / 20) END",
        )

    def influence(self) -> dict[str, Any]:
        """Return the result of an influence report on as many people as it keeps."""
        people = User.objects.filter(memberships__project=self.project)[:MOST_GROUPS]
        group = {"votes": 9, "examples": 9, "estimate": 0.01, "run": None}
        return {
            "points": ["step 1"],
            "validation_examples": 64,
            "measured": 5000,
            "examples": 5000,
            "groups": {
                "person": [group | {"key": str(user.pk)} for user in people],
                "topic": [group | {"key": f"topic {number}"} for number in range(20)],
                "source": [group | {"key": "annotate"}],
                "week": [group | {"key": "2026-W48"}],
            },
        }

    def splits(self) -> None:
        """One split runs with a conversation for each hundred completions; ended ones are small."""
        shape, project = self.shape, self.project
        splits, seats = max(6, shape.versions // 10), shape.completions // 100
        rows(
            v.TrafficSplit(
                project=project, percent=50, started_by=self.staff["owner"], auto_stop=False
            ),
            splits,
            id="n",
            candidate_id=f"(n - 1) % {shape.versions} + 1",
            live_version="'base'",
            status=f"CASE WHEN n = {splits} THEN 'running' ELSE 'stopped' END",
            ended_at=f"CASE WHEN n < {splits} THEN now() END",
        )
        small = 50 * (splits - 1)
        seat = v.Assignment(percent=50)
        voted = "CASE WHEN n % 2 = 0 THEN CASE WHEN n % 3 = 0 THEN 'down' ELSE 'up' END ELSE '' END"
        counted = {"candidate": "n % 4 < 2", "key": "'seat-' || n", "voter": "'voter-' || n"}
        rows(
            seat,
            small,
            id="n",
            split_id="(n - 1) / 50 + 1",
            verdict=voted,
            counted="CASE WHEN n % 2 = 0 THEN n END",
            **counted,
        )
        rows(
            seat,
            seats,
            id=f"n + {small}",
            split_id=str(splits),
            verdict=voted,
            counted="CASE WHEN n % 2 = 0 THEN n END",
            **counted,
        )
        rows(
            v.AssignmentAnswer(first_seconds=0.3, seconds=2, words=40),
            small + seats,
            id="n",
            assignment_id="n",
            end="CASE WHEN n % 20 = 0 THEN 'left' ELSE 'whole' END",
        )

    def records(self) -> None:
        """Imports, webhooks, invitations, tokens and the audit trail."""
        shape, project, owner = self.shape, self.project, self.staff["owner"]
        count = shape.completions
        rows(
            f.ImportJob(project=project, by=owner, name="file.jsonl", path="", status="done"),
            max(20, count // 10_000),
            id="n",
            finished_at="now()",
        )
        rows(
            f.ImportRefusal(reason="It has no answer.", excerpt="{}"),
            count // 100,
            id="n",
            job_id=f"n % {max(20, count // 10_000)} + 1",
            number="n",
        )
        rows(
            f.Webhook(project=project, secret="x", created_by=owner, active=False),
            3,
            id="n",
            url="'https://hook-' || n || '.example.com/'",
            events="'[]'::jsonb",
        )
        rows(
            f.WebhookDelivery(event="vote.cast", body="{}", attempts=1),
            count // 10,
            id="n",
            webhook_id="n % 3 + 1",
            key="n",
            status="CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'delivered' END",
            created_at=shape.moment("n", count // 10),
        )
        rows(
            Invitation(project=project, role=Role.ANNOTATOR, created_by=owner, prefix="x"),
            shape.people,
            id="n",
            digest=s.hashed("invitation"),
            expires_at="now() + interval '1 day'",
        )
        mail = "'t' || n || '@service.invalid'"
        known = f"n + {API_PEOPLE - TOKENS}"
        rows(User(password="!", is_active=False), TOKENS, id=known, email=mail)
        rows(
            ApiToken(project=project, name="A token", prefix="x", scopes=[], created_by=owner),
            TOKENS,
            id="n",
            user_id=known,
            digest=s.hashed("token"),
        )
        rows(
            ApiReceipt(asked="x", answer="{}"),
            count // 100,
            id="n",
            token_id=f"n % {TOKENS} + 1",
            key="'key-' || n",
        )
        rows(
            AuditEvent(project=project, actor=owner, action="project.change", target="x"),
            count // 10,
            id="n",
            created_at=shape.moment("n", count // 10),
        )
        rows(
            f.Sampling(project=project, status="done", done=10, total=10),
            max(3, count // 10_000),
            id="n",
        )
        rows(
            f.GuidelinesVersion(project=project, by=owner),
            20,
            id="n + 100",
            number="n + 1",
            text="'Version ' || n",
        )
        f.Project.objects.filter(pk=project.pk).update(guidelines_number=21)
        question = [{"role": "user", "content": "A question"}]
        rows(
            f.Probe(project=project, messages=question, kind="contains", created_by=owner),
            300,
            id="n",
            pattern="'Text ' || n",
            retired_at="CASE WHEN n > 150 THEN now() END",
        )

    def secrets(self) -> dict[str, Any]:
        """Create what only the client knows: tokens, a share link with visitors, an invitation."""
        from feedback_app.feedback.members.services import invitation_create

        sequences_follow()
        owner = self.staff["owner"]
        project = f.Project.objects.get(pk=self.project.pk)
        tokens = {
            scope.value: token_create(project=project, name=scope.value, scopes=[scope], by=owner)[
                1
            ]
            for scope in Scope
        }
        link, secret = link_create(
            project=project,
            label="A link",
            choice="live",
            days=30,
            messages_limit=1_000_000,
            messages_each=1_000_000,
            votes_limit=1_000_000,
            by=owner,
        )
        visitor = visitor_create(link)
        chat = v.Conversation.objects.create(project=project, user=visitor.user, title="x")
        answer = f.Completion.objects.get(pk=1)
        turn = v.Turn.objects.create(
            conversation=chat, position=0, user_message="x", completion=answer
        )
        rows(
            v.ShareLink(
                project=project,
                label="A link",
                choice="live",
                messages_limit=9,
                messages_each=9,
                votes_limit=9,
                created_by=owner,
            ),
            100,
            id="n + 1000",
            digest=s.hashed("link"),
            expires_at="now() + interval '1 day'",
        )
        visitors = self.shape.completions // 1_000
        mail = "'v' || n || '@service.invalid'"
        known = f"n + {10 * API_PEOPLE}"
        rows(User(password="!", is_active=False), visitors, id=known, email=mail)
        rows(
            v.ShareVisitor(),
            visitors,
            id="n + 1000",
            user_id=known,
            link_id=f"CASE WHEN n % 2 = 0 THEN {link.pk} ELSE 1001 + n % 100 END",
        )
        membership = project.memberships.get(user=owner)
        _, invitation = invitation_create(role=Role.VIEWER, days=7, max_uses=5, actor=membership)
        return {
            "tokens": tokens,
            "link": secret,
            "link_pk": link.pk,
            "visitor": visitor.pk,
            "visitor_turn": turn.pk,
            "visitor_completion": answer.pk,
            "invitation": invitation,
        }


METRICS = s.METRICS
MEASURES = "up finished tokens repetition relevance refusal kl_per_token neutral_logprob".split()
RULES = [
    {
        "key": measure,
        "label": measure.title(),
        "outcome": "passed",
        "text": "within its margin",
        "value": 0.02,
        "low": -0.05,
        "high": 0.1,
        "border": -0.1,
        "passes_above": True,
    }
    for measure in MEASURES
]


def report_of(name: str) -> dict[str, Any]:
    """Return a gate report over forty prompts with two answers of each version."""
    figures = {m: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 40} for m in MEASURES}
    answer = {"text": LONG, "finish_reason": "stop", "tokens": 40, "up": 0.5}
    return {
        "candidates": {name: figures, "base": figures},
        "answers": [
            {
                "id": f"p{number}",
                "messages": [{"role": "user", "content": f"Question {number}?"}],
                "answers": {name: [{**answer, "up": 0.6}] * 2, "base": [answer] * 2},
            }
            for number in range(40)
        ],
        "test": [],
    }


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sequences_follow() -> None:
    """Let new rows come after the rows whose ids were given."""
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            pk = model._meta.pk
            if isinstance(pk, models.AutoField) and model._meta.managed:
                table, column = model._meta.db_table, pk.column
                cursor.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), "
                    f"greatest((SELECT max({column}) FROM {table}), 1))"
                )


def main() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    filled = Filling(int(sys.argv[1])).fill()
    with connection.cursor() as cursor:
        # as autovacuum does it: index-only scans rely on it
        cursor.execute("VACUUM ANALYZE")
    print(json.dumps(filled))


if __name__ == "__main__":
    main()
