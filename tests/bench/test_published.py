"""docs/models.md has the figures of the plan code."""

from pathlib import Path

from bench.published import GPUS, WAYS, table

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_page_has_the_current_table() -> None:
    found = table()
    assert found in PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in found.splitlines()[2:]]
    assert {len(row) for row in rows} == {4 + len(WAYS) + len(GPUS)}
