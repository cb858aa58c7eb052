"""Versions of a project's guidelines and the differences between them."""

import difflib
from dataclasses import dataclass
from typing import Literal

from feedback_app.accounts.models import User
from feedback_app.feedback.models import GuidelinesVersion, Project

#: Unchanged lines shown around a change.
AROUND = 2


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
    """Return a line diff with some context."""
    old, new = before.splitlines(), after.splitlines()
    lines: list[DiffLine] = []
    shown_to = 0
    matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
    for group in matcher.get_grouped_opcodes(AROUND):
        if lines or group[0][1] > 0:
            lines.append(DiffLine("gap"))
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                lines += [DiffLine("same", text) for text in old[a1:a2]]
            else:
                lines += [DiffLine("removed", text) for text in old[a1:a2]]
                lines += [DiffLine("added", text) for text in new[b1:b2]]
        shown_to = group[-1][2]
    if lines and shown_to < len(old):
        lines.append(DiffLine("gap"))
    return lines
