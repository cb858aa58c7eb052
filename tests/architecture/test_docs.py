"""Files, links and anchors named in the documentation exist."""

import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
#: A record of measurements and experiments: it names files as they were then.
HISTORY = {"docs/log.md", "CHANGELOG.md"}
NAMED = re.compile(r"(?<![\w/.])((?:[\w.-]+/)+[\w.-]+\.(?:py|html|js|css|md))(?!\w)")
WITHIN = re.compile(r"(?<![\w/.])((?:feedback_app|trainer|tests|bench|tools|docs)/[\w./-]+\.\w+)")


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split() if name not in HISTORY]


DOCUMENTS = [str(path.relative_to(ROOT)) for path in tracked("*.md")]


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_have_a_target(name: str) -> None:
    document = ROOT / name
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_named_in_documents_exist(name: str) -> None:
    mentioned = NAMED.findall((ROOT / name).read_text())
    roots = [ROOT, (ROOT / name).parent]
    roots += [ROOT / part for part in ("feedback_app", "trainer", "tests/trainer")]
    missing = [one for one in mentioned if not any((root / one).exists() for root in roots)]
    assert missing == []


def test_modules_named_in_docstrings_and_comments_exist() -> None:
    missing = []
    for path in tracked("*.py", "Procfile", "Makefile", "*.yml"):
        for one in WITHIN.findall(path.read_text()):
            if not (ROOT / one).exists() and "no_such" not in one:
                missing.append(f"{path.relative_to(ROOT)}: {one}")
    assert missing == []


def test_pages_are_built_and_all_documents_are_in_them() -> None:
    navigation = set(re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    documents = (ROOT / "docs").rglob("*.md")
    assert navigation == {str(path.relative_to(ROOT / "docs")) for path in documents}


def test_table_of_faults_is_complete() -> None:
    text = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| (\d+) \|(.*)$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 40))
    untested = [number for number, row in rows if "`tests/" not in row]
    assert untested == [], "name the tests of these faults"
