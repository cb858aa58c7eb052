"""What the engine counts, in Prometheus' text format."""

import resource
from pathlib import Path

from trainer.engine.scheduler import Scheduler

_OUTCOMES = ("stop", "length", "cancelled", "failed", "refused")


def exposition(scheduler: Scheduler) -> str:
    """Return the body of `GET /metrics`."""
    measures = scheduler.metrics
    counted = measures.counters
    lines = ["# TYPE prospect_engine_requests_total counter"]
    lines += [
        f'prospect_engine_requests_total{{outcome="{outcome}"}} {counted[outcome]}'
        for outcome in _OUTCOMES
    ]
    for name, kind, value in (
        ("prompt_tokens_total", "counter", counted["prompt_tokens"]),
        ("reused_prompt_tokens_total", "counter", scheduler.reused_tokens),
        ("completion_tokens_total", "counter", counted["completion_tokens"]),
        ("steps_total", "counter", counted["steps"]),
        ("step_seconds_total", "counter", round(measures.step_seconds, 6)),
        ("adapter_loads_total", "counter", counted["loads"]),
        ("adapter_evictions_total", "counter", counted["evictions"]),
        ("running", "gauge", scheduler.running),
        ("queued", "gauge", scheduler.queued),
        ("adapters", "gauge", len(scheduler.adapters())),
    ):
        lines += [f"# TYPE prospect_engine_{name} {kind}", f"prospect_engine_{name} {value}"]
    if resident := resident_bytes():
        name = "process_resident_memory_bytes"  # as other exporters call it
        lines += [f"# TYPE {name} gauge", f"{name} {resident}"]
    for histogram, name, about in (
        (measures.first_token, "first_token_seconds", "From the queue to the first token."),
        (measures.token_gap, "token_gap_seconds", "Between two tokens of one answer."),
        (measures.load, "adapter_load_seconds", "To verify an adapter and take it in."),
    ):
        lines += histogram.lines(f"prospect_engine_{name}", about)
    lines.append("# TYPE prospect_engine_failures_total counter")
    lines += [
        f'prospect_engine_failures_total{{model="{escaped(model)}"}} {count}'
        for model, count in sorted(measures.failures.copy().items())
    ]
    return "\n".join(lines) + "\n"


def resident_bytes() -> int | None:
    """Return the memory that this process takes; None where the system does not say (no /proc)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * resource.getpagesize()


def escaped(label: str) -> str:
    """Escape a label's value: names of models come from clients."""
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
