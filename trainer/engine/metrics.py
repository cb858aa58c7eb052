"""What the engine counts, in Prometheus' text format."""

from trainer.engine.scheduler import Scheduler

_OUTCOMES = ("stop", "length", "cancelled", "failed", "refused")


def exposition(scheduler: Scheduler) -> str:
    """The body of `GET /metrics`."""
    counted = scheduler.counters
    lines = ["# TYPE prospect_engine_requests_total counter"]
    lines += [
        f'prospect_engine_requests_total{{outcome="{outcome}"}} {counted[outcome]}'
        for outcome in _OUTCOMES
    ]
    for name, kind, value in (
        ("prompt_tokens_total", "counter", counted["prompt_tokens"]),
        ("completion_tokens_total", "counter", counted["completion_tokens"]),
        ("steps_total", "counter", counted["steps"]),
        ("step_seconds_total", "counter", round(scheduler.step_seconds, 6)),
        ("running", "gauge", scheduler.running),
        ("queued", "gauge", scheduler.queued),
        ("adapters", "gauge", len(scheduler.adapters())),
    ):
        lines += [f"# TYPE prospect_engine_{name} {kind}", f"prospect_engine_{name} {value}"]
    return "\n".join(lines) + "\n"
