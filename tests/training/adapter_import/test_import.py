"""Importing a version: what is refused, and what is queued for a worker."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from fsspec.implementations.memory import MemoryFileSystem
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Completion, Project, Split
from feedback_app.privacy.erasure import runs_with
from feedback_app.training.adapter_import.services import import_archive, import_directory
from feedback_app.training.models import Run
from feedback_app.web.errors import UserError
from tests.training.adapter_import.files import CONFIG, MODULE, archive, files, safetensors, write

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


@pytest.fixture(autouse=True)
def root(settings: Settings, tmp_path: Path) -> Path:
    settings.ARTIFACT_ROOT = tmp_path / "artifacts"
    return tmp_path / "artifacts"


def stored(root: Path) -> list[str]:
    folder = root / "imported"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def refused(project: Project, content: dict[str, bytes] | io.BytesIO) -> str:
    """Return why an archive is refused; nothing of it may be kept."""
    packed = archive(content) if isinstance(content, dict) else content
    with pytest.raises(UserError) as error:
        import_archive(project=project, by=None, upload=packed)
    assert not Run.objects.exists()
    return str(error.value)


def test_archive_is_stored_and_queued_as_a_run_without_training(
    voted_project: Project, admin: User, root: Path
) -> None:
    content = {f"mine/{name}": data for name, data in files().items()}
    more = {"mine/README.md": b"# mine", "mine/optimizer.pt": b"\x80\x04N."}

    run = import_archive(project=voted_project, by=admin, upload=archive(content | more))

    assert (run.trigger, run.number, run.trains) == ("imported", 1, False)
    assert (run.config["lora_r"], run.config["lora_alpha"]) == (2, 4)
    directory = root / run.config["imported"]
    assert sorted(path.name for path in directory.iterdir()) == sorted(files())
    assert (directory / "adapter_model.safetensors").read_bytes() == safetensors()
    assert set(run.snapshot.items.values_list("split", flat=True)) == {Split.TEST}
    assert (run.snapshot.train_total, run.snapshot.test_total) == (0, 12)
    assert AuditEvent.objects.get(action="adapter.import").target == "Run 1"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (files({"base_model_name_or_path": "someone/Other-7B"}), "someone/Other-7B"),
        (files({"base_model_name_or_path": None}), "SmolLM2-135M-Instruct"),
        (files({"r": 512}), "from 1 to 256"),
        (files({"r": True}), "whole number"),
        (files({"r": 4}), "does not fit the rank 4"),
        (files({"peft_type": "PREFIX_TUNING"}), "only LoRA"),
        (files({"use_dora": True}), "DoRA"),
        (files({"lora_alpha": 0}), "positive"),
        (files(weights=b"PK"), "no safetensors file"),
        (files(weights=b"\x80\x04\x95pickle" * 10), "no safetensors file"),
        (files(weights=safetensors(cut=5)), "cut off or damaged"),
        (files(weights=safetensors(gap=4)), "cut off or damaged"),
        (files(weights=safetensors(dtype="I32")), "bfloat16"),
        (files(weights=safetensors(dtype=["F32"])), "bfloat16"),
        (files(weights=safetensors({})), "no tensors"),
        (files(weights=safetensors({f"{MODULE}.lora_A.weight": [2, 8]})), "lacks lora_B"),
        (files(weights=safetensors({"lm_head.weight": [2, 8]})), "no LoRA matrix"),
        (files(weights=safetensors({f"{MODULE}.lora_A.weight": [2, 8, 1]})), "no matrix"),
        (files() | {"adapter_config.json": b"[]"}, "JSON object"),
        (files() | {"adapter_config.json": b"{" * 5_000}, "no JSON"),
        ({"adapter_config.json": b"{}"}, "adapter_model.safetensors is missing"),
        ({"adapter_model.safetensors": safetensors()}, "adapter_config.json is missing"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"\x80"}, "safe_serialization=True"),
        (files() | {"../outside.txt": b""}, "leaves the archive"),
        (files() | {"/etc/passwd": b""}, "leaves the archive"),
        (files() | {f"two/{name}": data for name, data in files().items()}, "2 times"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    content: dict[str, bytes], why: str, voted_project: Project, root: Path
) -> None:
    assert why in refused(voted_project, content)
    assert stored(root) == []


def test_every_fault_is_named(voted_project: Project) -> None:
    found = refused(voted_project, files({"r": 999, "use_dora": True}, safetensors(cut=1)))

    assert all(why in found for why in ("999", "DoRA", "cut off"))


def test_archive_of_links_is_refused(voted_project: Project) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        link = zipfile.ZipInfo("adapter_model.safetensors")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
        target.writestr("adapter_config.json", json.dumps(CONFIG))
    packed.seek(0)

    assert "symbolic link" in refused(voted_project, packed)


def test_archive_that_expands_beyond_the_limit_is_refused(
    voted_project: Project, settings: Settings, root: Path
) -> None:
    settings.ADAPTER_UPLOAD_MB = 1
    bomb = archive(files(weights=bytes(5_000_000)))
    assert len(bomb.getvalue()) < 100_000

    assert "1 MB are allowed" in refused(voted_project, bomb)
    assert stored(root) == []


def test_archive_with_a_false_size_writes_no_more_than_the_limit(
    voted_project: Project, settings: Settings, root: Path
) -> None:
    settings.ADAPTER_UPLOAD_MB = 1
    packed = archive(files(weights=bytes(5_000_000)))
    data = packed.getvalue().replace((5_000_000).to_bytes(4, "little"), (9).to_bytes(4, "little"))

    refused(voted_project, io.BytesIO(data))

    assert stored(root) == []


def packed_by(method: int) -> bytearray:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as target:
        for name, data in files(weights=bytes(range(256)) * 40).items():
            target.writestr(name, data)
    return bytearray(packed.getvalue())


def test_archive_with_a_damaged_file_is_refused(voted_project: Project, root: Path) -> None:
    data = packed_by(zipfile.ZIP_DEFLATED)
    begin = 30 + len("adapter_config.json")
    data[begin : begin + 60] = bytes(byte ^ 0xFF for byte in data[begin : begin + 60])
    assert "ZIP archive" in refused(voted_project, io.BytesIO(data))
    named = archive({"caf\u00e9": b""} | files()).getvalue()
    named = named.replace("\u00e9".encode(), b"\xff\xff")
    assert "ZIP archive" in refused(voted_project, io.BytesIO(named))
    assert stored(root) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(method: int, voted_project: Project) -> None:
    assert "unusual method" in refused(voted_project, io.BytesIO(packed_by(method)))


class Counted(io.BytesIO):
    """Knows the most bytes that were read at once."""

    most = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.most = max(self.most, len(data))
        return data


def test_long_table_of_contents_is_not_read(voted_project: Project) -> None:
    small = archive({"x": b""} | files()).getvalue()
    table, end = small.index(b"PK\x01\x02"), small.index(b"PK\x05\x06")
    entries = small[table:end] * 20_000
    tail = bytearray(small[end:])
    tail[12:16] = len(entries).to_bytes(4, "little")
    packed = Counted(small[:table] + entries + tail)

    assert "table of contents" in refused(voted_project, packed)
    assert packed.most < 2_000_000 < len(entries)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_archive_is_refused(data: bytes, voted_project: Project) -> None:
    assert "ZIP archive" in refused(voted_project, io.BytesIO(data))


def test_project_without_test_examples_of_both_labels_says_so(project: Project) -> None:
    assert "test examples" in refused(project, files())


def test_import_waits_for_the_active_run(voted_project: Project, root: Path) -> None:
    import_archive(project=voted_project, by=None, upload=archive(files()))

    with pytest.raises(UserError, match="Another run is in progress"):
        import_archive(project=voted_project, by=None, upload=archive(files()))
    assert len(stored(root)) == 1


def test_refused_import_leaves_nothing_in_the_artifact_store(
    voted_project: Project, settings: Settings
) -> None:
    settings.ARTIFACT_URL = "memory://refused-import"
    kept = import_archive(project=voted_project, by=None, upload=archive(files()))

    with pytest.raises(UserError, match="Another run is in progress"):
        import_archive(project=voted_project, by=None, upload=archive(files()))

    found = MemoryFileSystem().ls("/refused-import/imported", detail=False)
    assert found == [f"/refused-import/{kept.config['imported']}"]


def test_imported_version_learned_from_nobody(voted_project: Project, annotator: User) -> None:
    run = import_archive(project=voted_project, by=None, upload=archive(files()))
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)

    assert runs_with(project=voted_project, user=annotator) == []


# -- the directory and the command


def test_command_imports_a_directory_of_any_size(
    voted_project: Project, tmp_path: Path, settings: Settings
) -> None:
    settings.ADAPTER_UPLOAD_MB = 0
    call_command("import_adapter", "bot", str(write(tmp_path / "mine")))

    assert Run.objects.get().trigger == "imported"
    with pytest.raises(CommandError, match="no project"):
        call_command("import_adapter", "nothing", str(tmp_path))
    with pytest.raises(CommandError, match=r"adapter_config\.json is missing"):
        call_command("import_adapter", "bot", str(tmp_path))


def test_links_in_a_directory_are_not_followed(voted_project: Project, tmp_path: Path) -> None:
    source = write(tmp_path / "mine")
    (source / "adapter_model.safetensors").rename(tmp_path / "elsewhere")
    (source / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(write(tmp_path / "other"))

    with pytest.raises(UserError, match="links are not followed"):
        import_directory(project=voted_project, by=None, source=source)
    with pytest.raises(UserError, match="no directory"):
        import_directory(project=voted_project, by=None, source=tmp_path / "link")


# -- the page


def post(client: Client, project: Project, data: bytes, **more: Any) -> Any:
    file = SimpleUploadedFile("mine.zip", data, "application/zip")
    target = reverse("adapter-import", args=[project.slug])
    return client.post(target, {"file": file}, **more)


def test_page_imports_an_archive_and_shows_the_run(
    voted_project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)

    answer = post(client, voted_project, archive(files()).getvalue(), follow=True)

    page = answer.content.decode()
    assert answer.redirect_chain[-1][0] == reverse("run", args=["bot", 1])
    assert "Imported" in page
    assert "Trained" in page
    assert "for training" not in page
    listed = client.get(reverse("runs", args=["bot"])).content.decode()
    assert "Imported by Ada Admin" in listed


def test_page_shows_why_an_archive_is_refused(
    voted_project: Project, admin: User, as_user: As
) -> None:
    config = {"base_model_name_or_path": "<script>alert(1)</script>"}

    answer = post(as_user(admin), voted_project, archive(files(config)).getvalue())

    assert answer.status_code == 400
    assert "Nothing was imported." in answer.content.decode()
    assert "<script>alert" not in answer.content.decode()


def test_page_is_for_admins_and_checks_size_and_token(
    voted_project: Project,
    admin: User,
    annotator: User,
    outsider: User,
    as_user: As,
    settings: Settings,
) -> None:
    data = archive(files()).getvalue()
    for person, status in ((annotator, 403), (outsider, 404)):
        assert post(as_user(person), voted_project, data).status_code == status
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin)
    assert post(strict, voted_project, data).status_code == 403
    settings.ADAPTER_UPLOAD_MB = 0
    large = post(as_user(admin), voted_project, bytes(200_000))
    assert large.status_code == 413
    assert not Run.objects.exists()


def test_completions_of_the_snapshot_are_not_marked_as_used(voted_project: Project) -> None:
    import_archive(project=voted_project, by=None, upload=archive(files()))

    assert not Completion.objects.filter(example__used_in_run__isnull=False).exists()
