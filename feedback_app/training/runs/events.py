"""Storage of the trainer's events: curves, progress and the run's log."""

import json
from pathlib import Path
from typing import Any

from django.db import transaction

from feedback_app.training.models import RunMetric, RunNote
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.config import start_version
from feedback_app.training.sweeps.probes import probes_with

METRIC_FIELDS = (
    "loss",
    "kl",
    "kl_unclamped",
    "reward_desirable",
    "reward_undesirable",
    "completion_tokens",
    "learning_rate",
    "grad_norm",
    "seconds",
)
#: Fields that every event has.
NOT_FACTS = ("type", "time", "request_id")


def read_new_events(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the complete lines after `offset` and the next offset; a partial line is left."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    end = data.rfind(b"\n") + 1
    events = []
    for line in data[:end].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a line that was cut by a kill
        if isinstance(event, dict):
            events.append(event)
    return events, offset + end


def events_store(claim: RunClaim, events: list[dict[str, Any]], **fields: Any) -> bool:
    """Write the events with `fields` (the offset) and a heartbeat.

    Returns False if the claim is lost; then nothing was written.
    """
    metrics: dict[int, RunMetric] = {}
    notes: list[RunNote] = []
    for event in events:
        kind = event.get("type")
        if kind == "start":
            fields["facts"] = {k: v for k, v in event.items() if k not in NOT_FACTS}
        elif kind == "phase":
            fields |= {
                "phase": event["phase"],
                "progress_done": event["done"],
                "progress_total": event["total"],
            }
            if event["phase"] != "training":
                fields["eta_seconds"] = None
        elif kind == "step":
            metrics[event["step"]] = RunMetric(
                run=claim.row,
                step=event["step"],
                **{name: event.get(name) for name in METRIC_FIELDS},
            )
            fields |= {
                "phase": "training",
                "progress_done": event["step"],
                "progress_total": event["total_steps"],
                # 0 after the last step: what follows takes time, but is no training
                "eta_seconds": event.get("eta_seconds") or None,
            }
        elif kind == "probe" and event.get("validation_loss") is not None:
            fields["probes"] = probes_with(fields.get("probes", claim.row.probes), event)
        note = note_of(claim, event)
        if note is not None:
            notes.append(note)
    with transaction.atomic():
        if not claim.heartbeat(**fields):
            return False
        # a resumed run repeats the steps after its checkpoint: the newer metrics replace the older
        RunMetric.objects.bulk_create(
            metrics.values(),
            update_conflicts=True,
            unique_fields=["run", "step"],
            update_fields=list(METRIC_FIELDS),
        )
        RunNote.objects.bulk_create(notes)
    claim.row.probes = fields.get("probes", claim.row.probes)
    return True


def note_of(claim: RunClaim, event: dict[str, Any]) -> RunNote | None:
    """Return the log line of an event, or None."""
    kind = event.get("type")
    level = RunNote.Level.INFO
    if kind == "start":
        resumed = event.get("resumed_from_step")
        text = (
            f"Training {event['examples']} examples on {event['device']} in "
            f"{event.get('precision') or event['dtype']}; "
            f"λ for ups {event['lambda_d']:.2f}, for downs {event['lambda_u']:.2f}"
        )
        if resumed:
            text += f"; resumed from step {resumed}"
    elif kind == "probe":
        text = (
            f"Step {event['step']}: {event['kl_per_token']:.3f} nats per token away from "
            f"{start_version(claim.row.config) or 'the base'}, "
            f"measured on {event['answers']} answers"
        )
        # the second name is that of event files from before there was a validation split
        loss = event.get("validation_loss", event.get("heldout_loss"))
        if loss is not None:
            text += f"; loss on validation examples {loss:.4f}"
    elif kind == "checkpoint":
        text = f"Checkpoint at step {event['step']}"
    elif kind == "warning" or kind == "braked":
        text, level = str(event["message"]), RunNote.Level.WARNING
    else:
        return None
    return RunNote(run=claim.row, text=text, level=level)
