"""One request id from the browser to the trainer and the engine, with every process real."""

import json
import uuid
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Sampling, Source, Verdict
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.localstack.stack import Stack
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig, form_values
from tests.conftest import PASSWORD
from tests.engines import PATIENCE, wait_until
from tests.stacks import TINY, last_lines
from tests.training.gate.reports import SMALL_GATE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SHORT = RunConfig(epochs=1, batch_size=16, kl_brake=10)


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_user("admin@example.com", PASSWORD, name="Ada")


@pytest.fixture
def project(stack: Stack, admin: User) -> Project:
    """Thirty answers with votes, and one that waits, on the tiny model."""
    made = project_create(
        slug=f"bot-{uuid.uuid4().hex[:8]}",
        name="Bot",
        base_model=TINY,
        owner=admin,
        max_tokens=8,
        test_percent=20,
    )
    sampling = Sampling.objects.create(project=made, status=Sampling.Status.DONE, total=61, done=61)
    for number in range(61):
        completion = completion_create(
            project=made,
            prompt=prompt_get_or_create(
                project=made,
                messages=[{"role": "user", "content": f"Question {number}?"}],
                source=Source.IMPORT,
            ),
            answer=Answer(f"Answer {number}, short and finished.", "base", "stop", None, None),
            source=Source.IMPORT,
            sampling=sampling,
        )
        if number < 60:
            verdict = Verdict.UP if number % 3 == 0 else Verdict.DOWN
            vote_cast(completion=completion, verdict=verdict, by=admin, source=Source.ANNOTATE)
    gate_settings_save(project=made, settings=SMALL_GATE, by=admin)
    return made


def lines_with(path: Path, request_id: str) -> list[dict[str, object]]:
    """Return the JSON lines of a log that carry the request's id."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        if request_id in line:
            found.append(json.loads(line))
            assert found[-1]["request_id"] == request_id
    return found


@pytest.mark.long
def test_id_of_a_request_is_in_every_log_up_to_the_trainer_and_the_engine(
    stack: Stack, project: Project, admin: User
) -> None:
    request_id = f"browser-{uuid.uuid4().hex[:8]}"
    with httpx.Client(base_url=stack.url, headers={"Referer": stack.url}) as client:
        client.get("/accounts/login/")
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
        sign_in = {"login": admin.email, "password": PASSWORD, **token}
        assert client.post("/accounts/login/", data=sign_in).status_code == 302
        client.headers["X-Request-ID"] = request_id
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
        page = f"/projects/{project.slug}"

        client.get(f"{page}/annotate/")
        waiting = project.completions.get(vote_count=0)
        vote = client.post(
            f"{page}/completions/{waiting.pk}/vote/", data={"verdict": "up", **token}
        )
        assert vote.status_code < 400, vote.text[:300]
        assert vote.headers["X-Request-ID"] == request_id
        form = form_values(SHORT)
        started = client.post(f"{page}/runs/new/", data={**form, **token})
        assert started.status_code == 302, started.text[:300]
        chat = client.post(f"/demo/{project.slug}/new/", data=token).headers["Location"]
        streamed = client.post(
            f"{chat.rstrip('/')}/send/",
            data={"text": "Hello", **token},
            headers={"Accept": "text/event-stream"},
            timeout=PATIENCE,
        )
        assert "event: piece" in streamed.text

    run = Run.objects.get(project=project)

    def has_ended() -> bool:
        run.refresh_from_db()
        return not run.active

    wait_until(has_ended, what="the run to end")
    assert run.status == Run.Status.SUCCEEDED, (run.error, last_lines(stack, "worker-gpu"))

    web = lines_with(stack.process("web").log, request_id)
    assert {"vote", "run-request"} <= {line.get("view") for line in web}
    assert [line["run"] for line in web if line["event"] == "run_requested"] == [run.pk]
    worker = lines_with(stack.process("worker-gpu").log, request_id)
    started_with = [line["command"] for line in worker if line["event"] == "trainer_started"]
    assert started_with == ["train", "evaluate"]
    wait_until(
        lambda: any(
            line["event"] == "task_ended"
            for line in lines_with(stack.process("worker-gpu").log, request_id)
        ),
        what="the end of the task in the worker's log",
    )
    engine = lines_with(stack.process("engine").log, request_id)
    assert "answered" in [line["event"] for line in engine]
    run_directory = Path(settings.ARTIFACT_ROOT) / "runs" / str(run.pk)
    for name in ("events.jsonl", "evaluation/events.jsonl"):
        events = (run_directory / name).read_text().splitlines()
        assert events
        assert all(json.loads(line)["request_id"] == request_id for line in events)
    assert "request_id" not in run.facts
