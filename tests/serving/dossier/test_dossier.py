"""The signed dossier of a version, and that any change to it is found."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.serving.dossier.signed_file import (
    BadDossier,
    dossier_sign,
    dossier_verify,
    fingerprints,
)
from feedback_app.serving.models import TrafficSplit
from feedback_app.serving.releases.services import release_flip
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.services import run_request
from tests.browser.world import claimed, finish
from tests.serving.lineage.test_pages import version_of

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
EXAMPLE = {"version": {"name": "bot@1"}, "installation": {"written_at": "now"}}


@pytest.fixture
def version(voted_project: Project, admin: User) -> Adapter:
    """A version that passed the gate, was released by a person and was in a traffic split."""
    adapter = finish(claimed(run_request(project=voted_project, by=admin)), up=0.8)
    Run.objects.filter(pk=adapter.run_id).update(facts={"libraries": {"torch": "2.9.1"}})
    split = TrafficSplit.objects.create(
        project=voted_project, candidate=adapter, live_version="base", percent=20
    )
    TrafficSplit.objects.filter(pk=split.pk).update(status="stopped", reason="Long | enough")
    release_flip(
        project=voted_project, adapter=adapter, before=None, by=admin, reason="Kinder *answers*"
    )
    return adapter


def downloaded(client: Client, name: str) -> bytes:
    answer = client.get(reverse("dossier", args=["bot", name]))
    assert answer["Content-Disposition"].endswith('.dossier.json"')
    return answer.content


def test_dossier_says_what_the_version_is_and_who_approved_it(
    version: Adapter, admin: User, as_user: As
) -> None:
    data = downloaded(as_user(admin), version.name)

    found = dossier_verify(data, key=fingerprints()[0])
    dossier = found.dossier
    assert dossier["version"]["sha256"] == version.sha256
    assert dossier["run"]["settings"]["learning_rate"] == version.run.config["learning_rate"]
    assert dossier["run"]["facts"]["libraries"] == {"torch": "2.9.1"}
    assert dossier["snapshot"]["train_up"] == version.run.snapshot.train_up
    assert dossier["gate"]["outcome"] == "passed"
    assert dossier["gate"]["report"]["settings"]
    assert dossier["gate"]["measures"].keys() >= {version.name, "base"}
    [approval] = dossier["approvals"]
    assert (approval["by"], approval["reason"]) == (f"person {admin.pk}", "Kinder *answers*")
    assert [split["status"] for split in dossier["splits"]] == ["stopped"]
    assert {event["action"] for event in dossier["audit"]} == {"run.request", "release"}
    text = found.markdown
    assert "Kinder \\*answers\\*" in text
    assert "# Dossier of bot@1" in text
    whole = data.decode()
    for name in ("admin@example.com", "Ada Admin", "Question number", "An answer of"):
        assert name not in whole
    assert AuditEvent.objects.get(action="dossier.write").actor == admin


def test_dossier_names_the_versions_that_it_was_started_from(
    version: Adapter, voted_project: Project, admin: User, as_user: As
) -> None:
    second = version_of(voted_project, admin, start=version.name)
    content = dossier_verify(downloaded(as_user(admin), second.name)).dossier
    [before] = content["lineage"]["started_from"]
    assert (before["name"], before["sha256"]) == (version.name, version.sha256)


def test_dossier_is_for_admins_and_takes_a_fixed_number_of_queries(
    version: Adapter, voted_project: Project, admin: User, annotator: User, as_user: As
) -> None:
    url = reverse("dossier", args=["bot", version.name])
    assert as_user(annotator).get(url).status_code == 403
    client = as_user(admin)
    with CaptureQueriesContext(connection) as before:
        client.get(url)
    for _ in range(3):
        version_of(voted_project, admin, start=version.name)
        client.get(url)
    with CaptureQueriesContext(connection) as after:
        client.get(url)
    assert len(after) <= len(before)


@pytest.mark.slow
# every byte takes a minute; 29 divides no length that is likely
@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.long)])
def test_changed_bytes_of_the_file_are_found(
    version: Adapter, admin: User, as_user: As, stride: int
) -> None:
    data = downloaded(as_user(admin), version.name)
    assert len(data) > 5_000
    unnoticed = []
    for place in range(0, len(data), stride):
        # the lowest bit, and the one that changes the case of a letter
        for bit in (1, 32):
            changed = bytearray(data)
            changed[place] ^= bit
            try:
                dossier_verify(bytes(changed))
            except BadDossier:
                continue
            unnoticed.append((place, bit))
    assert unnoticed == []


def test_short_file_is_unchanged_under_every_flip() -> None:
    """All eight bits of every byte, removed, repeated and added bytes."""
    data = dossier_sign(EXAMPLE, "# Text")
    assert dossier_verify(data).markdown == "# Text"
    changed = [
        data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        for place in range(len(data))
        for bit in range(8)
    ]
    changed += [data[:place] + data[place + 1 :] for place in range(len(data))]
    changed += [data[:place] + b" " + data[place:] for place in range(len(data))]
    changed += [data + b"\n", b"\xef\xbb\xbf" + data, data.decode().encode("utf-16"), b""]
    changed += [b"[" * 100_000, b"null", b'{"format": "prospect-dossier-1"}']
    # a number of as many digits as the key has
    content = json.loads(data) | {"public_key": int("1" * 64)}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, indent=1) + "\n"
    changed.append(text.encode())
    for each in changed:
        with pytest.raises(BadDossier):
            dossier_verify(each)


def test_file_signed_with_another_key_is_found_by_the_fingerprint() -> None:
    forged = dossier_sign(EXAMPLE, "", secret="somebody else's secret")
    assert dossier_verify(forged).fingerprint != fingerprints()[0]
    with pytest.raises(BadDossier, match="another key"):
        dossier_verify(forged, key=fingerprints()[0])
    mine = dossier_sign(EXAMPLE, "")
    for key in (fingerprints()[0], dossier_verify(mine).public_key):
        assert dossier_verify(mine, key=key.upper()).dossier == EXAMPLE


def test_fingerprints_of_earlier_keys_stay_known(settings: Settings) -> None:
    before = dossier_sign(EXAMPLE, "")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new secret of this installation 123"
    present, earlier = fingerprints()
    assert dossier_verify(before).fingerprint == earlier != present


def test_lineage_page_shows_the_fingerprint(version: Adapter, admin: User, as_user: As) -> None:
    client = as_user(admin)
    text = client.get(reverse("lineage", args=["bot", version.name])).content.decode()
    assert fingerprints()[0] in text
    assert reverse("dossier", args=["bot", version.name]) in text


# -- the command


def verified(*args: str) -> str:
    out = StringIO()
    call_command("verify", *args, stdout=out)
    return out.getvalue()


def test_command_verifies_without_a_database(
    tmp_path: Path, django_assert_num_queries: Callable[[int], object]
) -> None:
    path = tmp_path / "bot-1.dossier.json"
    path.write_bytes(dossier_sign(EXAMPLE, "# Text"))

    with django_assert_num_queries(0):  # type: ignore[attr-defined]
        said = verified(str(path), "--key", fingerprints()[0])
    assert said.startswith("bot@1: every byte is as it was signed on now.")
    assert "anybody can sign" in verified(str(path))
    assert verified(str(path), "--markdown").strip() == "# Text"

    path.write_bytes(json.dumps(json.loads(path.read_bytes())).encode())
    with pytest.raises(CommandError, match="bytes differ"):
        verified(str(path))
    with pytest.raises(CommandError, match="No such file"):
        verified(str(tmp_path / "nothing"))
