"""Which answers of an evaluation keep a project's probes.

A person's regular expression may take exponential time on a model's text, so this runs in workers
only, with the package `regex`, which stops after a time. The gate and the pages read the result in
the report. The evaluation has separated the reasoning from these answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from feedback_app.feedback.models import Probe, Project

SECONDS = 0.5


def probes_judged(project: Project, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report with `kept` for each answer to a probe, and `timed_out` for those whose
    pattern took too long.

    Answers to a probe that was deleted meanwhile are removed.
    """
    entries = report.get("probes", [])
    known = project.probes.in_bulk([int(entry["id"]) for entry in entries])
    return {
        **report,
        "probes": [
            {
                **entry,
                "answers": {
                    version: _judged(known[int(entry["id"])], answers)
                    for version, answers in entry["answers"].items()
                },
            }
            for entry in entries
            if int(entry["id"]) in known
        ],
    }


def _judged(probe: Probe, answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a version's answers with their outcome.

    After the first timeout the others count as timed out too: 200 probes with such patterns would
    keep the worker for an hour otherwise.
    """
    judged: list[dict[str, Any]] = []
    timed_out = False
    for answer in answers:
        kept = None if timed_out else probe_kept(probe.kind, probe.pattern, answer["text"])
        timed_out = kept is None
        judged.append({**answer, "kept": bool(kept)} | ({"timed_out": True} if timed_out else {}))
    return judged


def probe_kept(kind: str, pattern: str, text: str) -> bool | None:
    """Return whether a text is as the probe wants it; None if its pattern took over SECONDS."""
    if kind in (Probe.Kind.CONTAINS, Probe.Kind.LACKS):
        found = pattern.casefold() in text.casefold()
        return found == (kind == Probe.Kind.CONTAINS)
    import regex  # not installed where only the web app runs

    try:
        # concurrent: the heartbeat's thread runs meanwhile
        match = regex.search(pattern, text, timeout=SECONDS, concurrent=True)
    except (TimeoutError, regex.error):  # patterns.py refuses what `regex` does not compile
        return None
    return (match is not None) == (kind == Probe.Kind.MATCHES)
