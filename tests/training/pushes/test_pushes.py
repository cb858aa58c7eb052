"""Versions that are pushed: the same files as the download, by a worker, where it is allowed."""

import base64
import datetime as dt
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter, Run, VersionPush
from feedback_app.training.pushes.destinations import LONGEST, destination_of
from feedback_app.training.pushes.services import push_execute, push_request
from feedback_app.training.runs.services import run_request
from feedback_app.web.errors import UserError
from tests.s3 import Bucket

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
WEIGHTS = b"\x08" + bytes(999)


@pytest.fixture
def adapter(voted_project: Project, admin: User, settings: Settings, tmp_path: Path) -> Adapter:
    """A version with files, in an installation that pushes to one bucket and one owner."""
    settings.ARTIFACT_ROOT, settings.ARTIFACT_URL = tmp_path, ""
    settings.PUSH_DESTINATIONS = ["s3://prospect-artifacts/models", "hf://acme"]
    run = run_request(project=voted_project, by=admin)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    name = voted_project.adapter_name(run.number)
    files = {
        "adapter_model.safetensors": WEIGHTS,
        "adapter_config.json": b"{}",
        "README.md": b"---\nlicense: apache-2.0\n---\n# A version\n",
    }
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    directory = tmp_path / "adapters" / name
    directory.mkdir(parents=True)
    for file, content in files.items():
        (directory / file).write_bytes(content)
    (directory / "manifest.json").write_text(json.dumps({"name": name, "files": digests}))
    return Adapter.objects.create(
        project=voted_project,
        run=run,
        name=name,
        path=f"adapters/{name}",
        sha256=digests["adapter_model.safetensors"],
        gate={"sentence": "Better than the base.", "rules": [], "outcome": "passed"},
        gate_outcome="passed",
        gate_won=True,
    )


def downloaded(adapter: Adapter, client: Client) -> dict[str, bytes]:
    """Return the files of the version's ZIP archive."""
    answer = client.get(reverse("adapter-download", args=[adapter.project.slug, adapter.name]))
    with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pushed(adapter: Adapter, admin: User, destination: str) -> VersionPush:
    push_request(adapter=adapter, destination=destination, by=admin)
    assert push_execute(adapter.pk)
    return VersionPush.objects.get()


# -- S3


def test_bucket_gets_the_files_of_the_download(
    adapter: Adapter, admin: User, as_user: As, bucket: Bucket
) -> None:
    push = pushed(adapter, admin, "s3://prospect-artifacts/models/chat")
    assert push.error == ""
    assert push.status == "done"
    folder = f"prospect-artifacts/models/chat/{adapter.name.replace('@', '-')}"
    assert push.url == f"s3://{folder}"
    files = bucket.filesystem
    there = {path.removeprefix(f"{folder}/"): files.cat_file(path) for path in files.find(folder)}
    assert there == downloaded(adapter, as_user(admin))
    verdict = json.loads(there["gate.json"])
    assert (verdict["gate"], verdict["sha256"]) == ("passed", adapter.sha256)
    assert verdict["sentence"] == "Better than the base."
    assert AuditEvent.objects.get(action="adapter.push").target == (
        f"{adapter.name} to s3://prospect-artifacts/models/chat"
    )


def test_bucket_that_does_not_exist_is_named_and_can_be_tried_again(
    adapter: Adapter, admin: User, bucket: Bucket, settings: Settings
) -> None:
    settings.PUSH_DESTINATIONS = ["s3://no-such-bucket", "s3://prospect-artifacts"]
    push = pushed(adapter, admin, "s3://no-such-bucket/x")
    assert push.status == "failed"
    assert "s3://no-such-bucket/x" in push.error
    assert pushed(adapter, admin, "s3://prospect-artifacts/x").status == "done"


# -- a hub


@dataclass
class Hub:
    """What a hub was sent: repositories, and their files."""

    url: str = ""
    refuses: bool = False
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    large: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """Return the endpoints that huggingface_hub calls for a commit; weights go by LFS."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

        def answer(self, body: object, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_PUT(self) -> None:
            hub.large[self.path.rsplit("/", 1)[1]] = self.body()
            self.answer({})

        def do_POST(self) -> None:
            body = self.body()
            hub.tokens.add(self.headers.get("Authorization"))
            if hub.refuses:
                self.answer({"error": "You are not a member of acme"}, 403)
            elif self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self.answer({"url": f"{hub.url}/acme/chat"})
            elif self.path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            elif self.path.startswith("/api/models/acme/chat/preupload/"):
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = {path: "lfs" if path.endswith("tensors") else "regular" for path in paths}
                entries = [
                    {"path": path, "uploadMode": mode, "shouldIgnore": False}
                    for path, mode in modes.items()
                ]
                self.answer({"files": entries})
            elif self.path.startswith("/acme/chat.git/info/lfs/objects/batch"):
                self.answer({"transfer": "basic", "objects": self.objects(json.loads(body))})
            elif self.path.startswith("/api/models/acme/chat/commit/"):
                self.commit(body)
                self.answer(
                    {
                        "success": True,
                        "commitOid": "a" * 40,
                        "commitUrl": f"{hub.url}/acme/chat/commit/1",
                    }
                )
            else:
                self.answer({"error": self.path}, 404)

        def objects(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
            return [
                {**entry, "actions": {"upload": {"href": f"{hub.url}/lfs/{entry['oid']}"}}}
                for entry in asked["objects"]
            ]

        def commit(self, body: bytes) -> None:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.large[value["oid"]]

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(found))
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield found
    server.shutdown()
    server.server_close()


# huggingface_hub sends files in a way that its HTTP client will not take for ever
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_repository_gets_the_files_of_the_download_in_one_commit(
    adapter: Adapter, admin: User, as_user: As, hub: Hub
) -> None:
    push = pushed(adapter, admin, "hf://acme/chat")
    assert push.error == ""
    assert push.status == "done"
    assert push.url == f"{hub.url}/acme/chat/commit/1"
    assert hub.files == downloaded(adapter, as_user(admin))
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.created[0]["visibility"] == "private"


def test_refusal_of_the_hub_is_shown_without_the_token(
    adapter: Adapter, admin: User, as_user: As, hub: Hub
) -> None:
    hub.refuses = True
    push = pushed(adapter, admin, "hf://acme/chat")
    assert push.status == "failed"
    assert "You are not a member of acme" in push.error
    assert "hf_secret" not in push.error
    page = as_user(admin).get(reverse("run", args=[adapter.project.slug, adapter.run.number]))
    assert "You are not a member of acme" in page.content.decode()
    assert "Push again" in page.content.decode()


def test_worker_without_the_library_says_so(adapter: Adapter, admin: User) -> None:
    with patch("feedback_app.training.pushes.hub.find_spec", return_value=None):
        push = pushed(adapter, admin, "hf://acme/chat")
    assert push.error == "huggingface_hub is not installed where this worker runs."


# -- what is allowed


def test_nothing_is_pushed_or_offered_unless_configured(
    adapter: Adapter, admin: User, as_user: As, settings: Settings
) -> None:
    settings.PUSH_DESTINATIONS = []
    with pytest.raises(UserError, match="PUSH_DESTINATIONS is not set"):
        push_request(adapter=adapter, destination="s3://prospect-artifacts/models", by=admin)
    page = as_user(admin).get(reverse("run", args=[adapter.project.slug, adapter.run.number]))
    assert 'id="push"' not in page.content.decode()


@pytest.mark.parametrize(
    "text",
    [
        "s3://prospect-artifacts/models/../other",
        "s3://prospect-artifacts/modelsX",
        "s3://other/models",
        "hf://acme",
        "hf://other/chat",
        "hf://acme/chat/more",
        "file:///etc/passwd",
        "https://example.com/x",
        "s3://prospect-artifacts/models?x=1",
        "hf://acme/<script>",
        "",
    ],
)
def test_other_destinations_are_refused(text: str, settings: Settings) -> None:
    settings.PUSH_DESTINATIONS = ["s3://prospect-artifacts/models", "hf://acme"]
    with pytest.raises(UserError):
        destination_of(text)


def test_longest_destination_fits_the_audit_trail(adapter: Adapter, admin: User) -> None:
    place = "s3://prospect-artifacts/models/" + "/".join(["f" * 89] * 3)
    assert len(place) == LONGEST

    push_request(adapter=adapter, destination=place, by=admin)

    event = AuditEvent.objects.get(action="adapter.push")
    # PostgreSQL refuses what is longer than its column
    event.full_clean(exclude=["address", "digest", "chain"])
    assert event.target.startswith(f"{adapter.name} to s3://prospect-artifacts/models/f")
    assert event.reason == f"To {place}"
    with pytest.raises(UserError, match="300 characters"):
        destination_of(f"{place}f")


def test_destination_that_is_no_longer_allowed_gets_nothing(
    adapter: Adapter, admin: User, settings: Settings
) -> None:
    push_request(adapter=adapter, destination="s3://prospect-artifacts/models", by=admin)
    settings.PUSH_DESTINATIONS = ["hf://acme"]
    assert push_execute(adapter.pk)
    assert "not among the destinations" in VersionPush.objects.get().error


def test_queued_push_of_an_archived_project_sends_nothing(adapter: Adapter, admin: User) -> None:
    push_request(adapter=adapter, destination="s3://prospect-artifacts/models", by=admin)
    Project.objects.update(archived_at=timezone.now())
    assert push_execute(adapter.pk)
    push = VersionPush.objects.get()
    assert push.status == "failed"
    assert "This project is archived" in push.error


def test_version_that_is_locked_is_not_pushed(adapter: Adapter, admin: User) -> None:
    push_request(adapter=adapter, destination="s3://prospect-artifacts/models", by=admin)
    Adapter.objects.update(locked_at=timezone.now())
    assert push_execute(adapter.pk)
    assert "it is locked" in VersionPush.objects.get().error
    adapter.refresh_from_db()
    with pytest.raises(UserError, match="it is locked"):
        push_request(adapter=adapter, destination="s3://prospect-artifacts/models", by=admin)


def test_damaged_files_are_not_pushed(adapter: Adapter, admin: User) -> None:
    (adapter.directory / "README.md").write_text("other")
    push = pushed(adapter, admin, "s3://prospect-artifacts/models")
    assert "README.md differs from its hash" in push.error


# -- requests and workers


def test_page_queues_a_push_and_the_request_sends_nothing(
    adapter: Adapter, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    url = reverse("adapter-push", args=[adapter.project.slug, adapter.name])
    with patch("feedback_app.training.pushes.services.files_put") as put:
        answer = client.post(url, {"destination": "s3://prospect-artifacts/models"}, follow=True)
        assert not put.called
    text = " ".join(answer.content.decode().split())
    assert "Waiting for a worker" in text
    assert 'hx-select="#push"' in text
    again = client.post(url, {"destination": "s3://prospect-artifacts/models"}, follow=True)
    assert "is being pushed" in again.content.decode()


def test_viewers_annotators_and_others_cannot_push(
    adapter: Adapter, annotator: User, viewer: User, outsider: User, as_user: As
) -> None:
    url = reverse("adapter-push", args=[adapter.project.slug, adapter.name])
    body = {"destination": "s3://prospect-artifacts/models"}
    answers = [as_user(person).post(url, body).status_code for person in (annotator, viewer)]
    assert answers == [403, 403]
    assert as_user(outsider).post(url, body).status_code == 404
    assert not VersionPush.objects.exists()


def test_two_workers_send_once_and_a_crash_is_taken_over(adapter: Adapter, admin: User) -> None:
    push_request(adapter=adapter, destination="s3://prospect-artifacts/models", by=admin)
    second = []

    def put(*_args: object) -> None:
        second.append(push_execute(adapter.pk))
        raise MemoryError

    with (
        patch("feedback_app.training.pushes.services.files_put", put),
        pytest.raises(MemoryError),
    ):
        push_execute(adapter.pk)
    assert second == [False]
    assert not push_execute(adapter.pk)
    VersionPush.objects.update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))
    with patch("feedback_app.training.pushes.services.files_put"):
        assert push_execute(adapter.pk)
    assert VersionPush.objects.get().status == "done"


def test_command_queues_and_refuses(adapter: Adapter, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("push_version", adapter.name, "s3://prospect-artifacts/models")
    assert "a worker sends its files" in capsys.readouterr().out
    assert VersionPush.objects.get().requested_by is None
    with pytest.raises(CommandError, match="There is no version"):
        call_command("push_version", "nothing@1", "s3://prospect-artifacts/models")
    with pytest.raises(CommandError, match="is no destination"):
        call_command("push_version", adapter.name, "ftp://x")
