"""Median stopping: which trial of a sweep goes no further, and how trials end.

A trial is stopped when the best measure that it has reached is worse than the median of what the
trials before it had reached at the same share of their steps (Golovin et al. 2017, Google Vizier,
section 3.2.2, with the best value in place of the running mean).
"""

from collections.abc import Iterable
from statistics import median

from django.utils import timezone

from feedback_app.training.models import Run
from feedback_app.training.runs import services
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.sweeps.probes import Measure, Probe, measure_of, probes_of

#: Fewer trials have no median to speak of.
LEAST_TRIALS = 3
#: Share of the steps before which no trial is stopped: the learning rate is still rising.
FIRST_SHARE = 0.25
#: Ends of a trial whose measures later ones are compared with.
COMPARED = (Run.Status.TRAINED, Run.Status.STOPPED)


def stop_reason(run_id: int) -> str:
    """Return why a trial that is training should stop; "" if it should not, or is no trial."""
    rows = Run.objects.select_related("sweep").defer("fit")
    run = rows.filter(pk=run_id, evaluates=False, sweep__early_stopping=True).first()
    if run is None or run.sweep is None:
        return ""
    measure = measure_of(run.sweep)
    probes = probes_of(run)
    share = share_of(run, probes)
    best = best_until(run, probes, share, measure)
    if best is None or not FIRST_SHARE <= share < 1:
        return ""
    others = run.sweep.trials.filter(status__in=COMPARED).exclude(pk=run.pk)
    reached = list(reached_at(others, share, measure))
    if len(reached) < LEAST_TRIALS or best <= median(reached):
        return ""
    return (
        f"Stopped early after {100 * share:.0f} % of its steps: its best validation {measure}, "
        f"{abs(best):.3f}, is worse than the median of {len(reached)} earlier trials there, "
        f"{abs(median(reached)):.3f}."
    )


def share_of(run: Run, probes: list[Probe]) -> float:
    """Return which share of its steps a run had done at its last probe."""
    total = run.facts.get("total_steps") or 0
    return probes[-1].step / total if probes and total else 0.0


def best_until(run: Run, probes: list[Probe], share: float, measure: Measure) -> float | None:
    """Return the best score, lower is better, that a run had reached at a share of its steps."""
    total = run.facts.get("total_steps") or 0
    # probes of runs of other lengths are not at the very same share
    early = [probe for probe in probes if probe.step <= share * total + 1e-6]
    scores = [score for probe in early if (score := probe.score(measure)) is not None]
    return min(scores, default=None)


def reached_at(runs: Iterable[Run], share: float, measure: Measure) -> Iterable[float]:
    """Yield the best scores of the runs that came at least as far."""
    for run in runs:
        probes = probes_of(run)
        best = best_until(run, probes, share, measure)
        if best is not None and share_of(run, probes) >= share:
            yield best


def trial_trained(claim: RunClaim) -> None:
    """End a trial that has trained to its end: its adapter is kept in the run's directory, and it
    becomes no version."""
    trial_end(claim, Run.Status.TRAINED, "Trained. The gate judges it if it is chosen.")


def trial_end(claim: RunClaim, status: Run.Status, note: str) -> None:
    """End a trial without a version, and without a message to webhooks or people."""
    if claim.update(status=status, finished_at=timezone.now(), eta_seconds=None, phase=""):
        services.run_note(run=claim.row, text=note)
