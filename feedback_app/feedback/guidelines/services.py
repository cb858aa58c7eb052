"""Versions of a project's guidelines and the differences between them."""

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from feedback_app.accounts.models import User
from feedback_app.feedback.models import GuidelinesVersion, Project

#: Unchanged lines shown around a change.
AROUND = 2
#: Changed lines, of one version, up to which they are compared one by one.
COMPARED_LINES = 1_000


@dataclass(frozen=True)
class DiffLine:
    """One line of a difference; `gap` marks omitted unchanged lines."""

    kind: Literal["same", "added", "removed", "gap"]
    text: str = ""


@dataclass(frozen=True)
class Change:
    """A version and its difference from the one before."""

    version: GuidelinesVersion
    lines: list[DiffLine]

    @property
    def added(self) -> int:
        return sum(line.kind == "added" for line in self.lines)

    @property
    def removed(self) -> int:
        return sum(line.kind == "removed" for line in self.lines)


def guidelines_write(*, locked: Project, text: str, by: User | None) -> bool:
    """Store `text` as the next version of a locked project's guidelines.

    Return whether it differs from the present version. The caller saves the project.
    """
    # browsers send CR LF, which alone is no change
    text = text.replace("\r\n", "\n")
    if text == locked.guidelines.replace("\r\n", "\n"):
        return False
    locked.guidelines = text
    locked.guidelines_number += 1
    GuidelinesVersion.objects.create(
        project=locked, number=locked.guidelines_number, text=text, by=by
    )
    return True


def guidelines_changes(versions: list[GuidelinesVersion], *, project: Project) -> list[Change]:
    """Return what each of these versions changed; they come newest first, without gaps."""
    if not versions:
        return []
    before = project.guidelines_versions.filter(number=versions[-1].number - 1).first()
    older = [*versions[1:], before]
    return [
        Change(version, difference(old.text if old else "", version.text))
        for version, old in zip(versions, older, strict=True)
    ]


def difference(before: str, after: str) -> list[DiffLine]:
    """Return a line diff with some context; empty for equal texts.

    Very many lines are shown as removed and added: their comparison would take too long.
    """
    lines = compared(before.splitlines(), after.splitlines())
    shown = {
        near
        for at, line in enumerate(lines)
        if line.kind != "same"
        for near in range(at - AROUND, at + AROUND + 1)
    }
    found: list[DiffLine] = []
    for at, line in enumerate(lines):
        if at in shown:
            found.append(line)
        elif shown and (not found or found[-1].kind != "gap"):
            found.append(DiffLine("gap"))
    return found


def compared(old: list[str], new: list[str]) -> list[DiffLine]:
    """Return every line of both texts, each once where they agree."""
    shorter = min(len(old), len(new))
    first = next((at for at in range(shorter) if old[at] != new[at]), shorter)
    rest = shorter - first
    last = next((at for at in range(rest) if old[-1 - at] != new[-1 - at]), rest)
    changed_old, changed_new = old[first : len(old) - last], new[first : len(new) - last]
    if max(len(changed_old), len(changed_new)) > COMPARED_LINES:
        middle = [("replace", 0, len(changed_old), 0, len(changed_new))]
    else:
        # of more than 200 lines the frequent ones, such as empty lines, begin no match: with them
        # the time would be quadratic
        middle = list(SequenceMatcher(None, changed_old, changed_new).get_opcodes())
    lines = [DiffLine("same", text) for text in old[:first]]
    for tag, a1, a2, b1, b2 in middle:
        if tag == "equal":
            lines += [DiffLine("same", text) for text in changed_old[a1:a2]]
        else:
            lines += [DiffLine("removed", text) for text in changed_old[a1:a2]]
            lines += [DiffLine("added", text) for text in changed_new[b1:b2]]
    return lines + [DiffLine("same", text) for text in old[len(old) - last :]]
