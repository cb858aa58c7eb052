"""A Parquet file of a few kilobytes that expands to gigabytes: refused, in little memory."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.feedback.tokens.services import token_create

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]

MIB = 1 << 20
STATUS = Path("/proc/self/status")
#: What one read may add to the process: far below the bomb's gigabytes, above what a read needs.
GROWTH = 150 * MIB


def bomb(*, size: int = 80 * MIB, rows: int = 64) -> bytes:
    """Return a file in which all rows refer to one long value of a dictionary page."""
    pool = pa.system_memory_pool()
    value = pa.array(["a" * size], memory_pool=pool)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), value)
    file = io.BytesIO()
    table = pa.table({"prompt": column, "completion": ["A"] * rows, "label": [True] * rows})
    pq.write_table(table, file, compression="zstd", dictionary_pagesize_limit=1 << 30)
    return file.getvalue()


def varint(value: int) -> bytes:
    """Return a Thrift integer: zigzag, seven bits a byte, least significant first."""
    value, out = value << 1, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def with_false_footer(body: bytes) -> bytes:
    """Return the file with a footer that states 100 bytes wherever it stated more than a MiB."""
    meta = pq.ParquetFile(io.BytesIO(body)).metadata
    group = meta.row_group(0)
    columns = [group.column(number) for number in range(meta.num_columns)]
    sizes = {group.total_byte_size, *(column.total_uncompressed_size for column in columns)}
    start = len(body) - 8 - meta.serialized_size
    data, footer = body[:start], body[start:]
    for size in sizes:
        if size > MIB:
            true = varint(size)
            small = varint(100)
            padded = bytes([*small[:-1], small[-1] | 128, *[128] * (len(true) - len(small) - 1), 0])
            footer = footer.replace(true, padded)
    changed = pq.ParquetFile(io.BytesIO(data + footer)).metadata.row_group(0)
    assert changed.total_byte_size < MIB
    assert changed.column(0).total_uncompressed_size < MIB
    return data + footer


@pytest.fixture(scope="module")
def honest() -> bytes:
    return bomb()


@pytest.fixture(scope="module", params=["true footer", "false footer"])
def body(request: pytest.FixtureRequest, honest: bytes) -> bytes:
    return honest if request.param == "true footer" else with_false_footer(honest)


class Memory:
    """The highest resident memory of this process since `start`, in bytes (Linux only)."""

    def start(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        self.before = self.read("VmRSS")

    @property
    def growth(self) -> int:
        return self.read("VmHWM") - self.before

    def read(self, name: str) -> int:
        [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(name)]
        return int(line.split()[1]) * 1024


@pytest.fixture
def memory(body: bytes) -> Memory:
    if not STATUS.exists():
        pytest.skip("the peak of a process's memory is read from /proc")
    measured = Memory()
    measured.start()
    return measured


def test_upload_of_a_bomb_is_refused_with_a_reason(
    body: bytes, memory: Memory, project: Project, admin: User, as_user: As
) -> None:
    assert len(body) < 20_000
    upload = SimpleUploadedFile("a.parquet", body)

    answer = as_user(admin).post(reverse("imports", args=["bot"]), {"file": upload})

    assert memory.growth < GROWTH
    assert answer.status_code == 400
    assert "MB" in answer.content.decode()
    assert not ImportJob.objects.exists()


def test_data_api_refuses_a_bomb(
    body: bytes, memory: Memory, project: Project, admin: User, client: Client
) -> None:
    _, secret = token_create(project=project, name="Shop", scopes=[Scope.DATA_WRITE], by=admin)

    answer = client.post(
        f"/api/v1/projects/{project.slug}/imports",
        body,
        content_type="application/octet-stream",
        headers={"Authorization": f"Bearer {secret}"},
    )

    assert memory.growth < GROWTH
    assert answer.status_code == 400
    assert "MB" in answer.json()["error"]["message"]


def test_import_of_a_bomb_fails_with_the_reason(
    body: bytes, memory: Memory, project: Project, tmp_path: Path
) -> None:
    (tmp_path / "a.parquet").write_bytes(body)

    with pytest.raises(CommandError, match="MB"):
        call_command("import_examples", tmp_path / "a.parquet", project="bot")

    assert memory.growth < GROWTH
    assert ImportJob.objects.get().status == "failed"
