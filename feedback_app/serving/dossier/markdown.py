"""A dossier as Markdown, for people."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|])")


def dossier_markdown(dossier: dict[str, Any]) -> str:
    """Return the text; it says what the JSON values say, from these alone."""
    version, run, gate = dossier["version"], dossier["run"], dossier["gate"]
    parts = [
        f"# Dossier of {plain(version['name'])}",
        table(
            ("", ""),
            [
                ("Project", dossier["project"]["name"]),
                ("SHA-256", version["sha256"]),
                ("Base model", f"{version['base_model']} {version['base_sha256']}".strip()),
                ("Created", version["created_at"]),
                ("Written", dossier["installation"]["written_at"]),
                ("Prospect", dossier["installation"]["prospect"]),
                ("Gate", gate["outcome"]),
            ],
        ),
        "## Approvals",
        rows_or_none(
            ("Since", "Until", "By", "Reason"),
            [[a["since"], a["until"], a["by"], a["reason"]] for a in dossier["approvals"]],
            "It was never live.",
        ),
        "## Gate",
        rows_or_none(
            ("Rule", "Outcome", "Finding"),
            [[r["label"], r["outcome"], r["text"]] for r in gate["report"].get("rules", [])],
            "No rule was recorded.",
        ),
        "## Traffic splits",
        rows_or_none(
            ("Candidate", "Live", "Percent", "Verdict", "Votes for each side"),
            [[*_split(split)] for split in dossier["splits"]],
            "It was in no traffic split.",
        ),
        "## Run",
        table(
            ("", ""),
            [
                ("Run", run["number"]),
                ("Requested by", run["requested_by"] or run["trigger"]),
                ("Finished", run["finished_at"]),
                *((f"Setting {name}", value) for name, value in sorted(run["settings"].items())),
                *((f"Fact {name}", value) for name, value in sorted(run["facts"].items())),
            ],
        ),
        "## Snapshot",
        table(("", ""), list(dossier["snapshot"].items())),
        "## Lineage",
        rows_or_none(
            ("Started from", "SHA-256", "Snapshot"),
            [
                [each["name"], each["sha256"], each["snapshot_sha256"]]
                for each in dossier["lineage"]["started_from"]
            ],
            "It was started from the base model.",
        ),
        f"Continued by: {plain(', '.join(dossier['lineage']['continued_by']) or 'no version')}.",
        "## Audit trail",
        rows_or_none(
            ("Number", "Time", "Action", "By", "Reason"),
            [
                [e["number"], e["created_at"], e["action"], e["actor"], e["reason"]]
                for e in dossier["audit"]
            ],
            "No event.",
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _split(split: dict[str, Any]) -> Iterable[Any]:
    votes = ", ".join(f"{s['version']}: {s['ups']} up of {s['votes']}" for s in split["sides"])
    return split["candidate"], split["live"], split["percent"], split["verdict"], votes


def rows_or_none(head: Sequence[str], rows: Sequence[Sequence[Any]], none: str) -> str:
    """Return a table, or the sentence `none` if it has no rows."""
    return table(head, rows) if rows else none


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head)]
    body = [[plain(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *body])


def plain(value: Any) -> str:
    """Return a value as text without meaning in Markdown, on one line."""
    text = "–" if value is None or value == "" else str(value)
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
