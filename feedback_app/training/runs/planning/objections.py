"""Why a run would be refused: too few examples, settings that do not fit, another run."""

from django.db.models import Exists, OuterRef

from feedback_app.db import bounded_count
from feedback_app.feedback.access import ARCHIVED
from feedback_app.feedback.models import Project, Split
from feedback_app.training.models import Adapter
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.settings import BY_NAME, DPO, LIVE, LOSSES, PISSA, SFT
from feedback_app.training.snapshots.caps import SnapshotTotals
from feedback_app.web.text.plurals import number_of

#: The fewest examples of each class that a run can train on and compare versions with.
MIN_PER_CLASS = 4
MIN_TEST_PER_CLASS = 1


def examples_used(config: RunConfig, totals: SnapshotTotals) -> int:
    """Return how many training examples a run with these settings learns from."""
    ups, downs = totals.counts["train_up"], totals.counts["train_down"]
    return ups if config.loss == SFT else ups + downs


def request_objections(
    project: Project, config: RunConfig, *, beside_others: bool = False
) -> list[str]:
    """Return why a run is refused whatever the examples are. No statement reads them."""
    found = [ARCHIVED] if project.archived_at else []
    found += start_objections(project, config)
    active = project.runs.active().evaluated().first()
    if active is not None and not beside_others:
        found.append(f"Run {active.number} is in progress: wait for it or cancel it.")
    return found


def example_objections(project: Project, config: RunConfig, totals: SnapshotTotals) -> list[str]:
    """Return why these examples are too few for a run with these settings."""
    counts, total = totals.counts, examples_used(config, totals)
    found = loss_objections(project, config.loss, counts["train_up"], counts["train_down"])
    if test := gate_objection(totals):
        found.append(test)
    if total < config.batch_size:
        found.append(
            f"{number_of(total, 'example')}: fewer than one batch of {config.batch_size}. Annotate "
            "more or choose a smaller batch."
        )
    return found


def gate_objection(totals: SnapshotTotals) -> str:
    """Return why the gate could compare nothing on the test examples; "" if it can."""
    ups, downs = totals.counts["test_up"], totals.counts["test_down"]
    if min(ups, downs) >= MIN_TEST_PER_CLASS:
        return ""
    return (
        f"{ups} up and {downs} down are test examples: the gate needs one of each at least to "
        "compare versions. Annotate more answers."
    )


def loss_objections(project: Project, loss: str, ups: int, downs: int) -> list[str]:
    """Return why a loss cannot learn from the training examples, with the label of its field."""
    label, name = BY_NAME["loss"].label, dict(LOSSES)[loss]
    if loss == SFT:
        if ups >= MIN_PER_CLASS:
            return []
        return [
            f"{label}: {name} needs at least {MIN_PER_CLASS} ups, and there are {ups}. Annotate "
            "more answers."
        ]
    if ups < MIN_PER_CLASS or downs < MIN_PER_CLASS:
        return [
            f"{ups} up and {downs} down: {name} needs at least {MIN_PER_CLASS} of each to learn "
            "the difference. Annotate more answers."
        ]
    if loss == DPO and not _has_pairs(project):
        return [
            f"{label}: {name} learns from prompts with both an up and a down, and no prompt has "
            "both. Vote on several answers of one prompt, or choose KTO."
        ]
    return []


def start_objections(project: Project, config: RunConfig) -> list[str]:
    """Return why a run cannot start from the live version, with the label of its field."""
    if config.start_from != LIVE:
        return []
    adapter = live_adapter(project)
    if adapter is None:
        return ["Start from: no version is live. Start from the base model."]
    stored = RunConfig.stored(adapter.run.config)
    # PiSSA saves twice the rank, with twice the α
    times = 2 if stored.lora_init == PISSA else 1
    needed = {
        "lora_r": times * stored.lora_r,
        "lora_alpha": times * stored.lora_alpha,
        "use_rslora": stored.use_rslora,
        "target_modules": stored.target_modules,
    }
    wrong = [name for name, value in needed.items() if getattr(config, name) != value]
    return [
        f"{BY_NAME[name].label}: {adapter.name} has {_written(name, needed[name])}, and a run "
        "that starts from it needs the same."
        for name in wrong
    ]


def live_adapter(project: Project) -> Adapter | None:
    """Return the live version with its run; None while the base is live."""
    adapters = project.adapters.select_related("run").defer("report", "gate")
    return adapters.filter(name=project.live_version).first()


def _written(name: str, value: object) -> str:
    """Return a setting's value as the form shows it."""
    choices = dict(BY_NAME[name].choices)
    if isinstance(value, str) and value in choices:
        return choices[value]
    return {True: "it on", False: "it off"}[value] if isinstance(value, bool) else str(value)


def _has_pairs(project: Project) -> bool:
    """Return whether a prompt has both an up and a down for training. Where a long search finds
    none, the trainer decides."""
    training = project.examples.filter(split=Split.TRAIN).order_by()
    downs = training.filter(desirable=False, completion__prompt=OuterRef("completion__prompt"))
    ups = training.filter(desirable=True)
    searched = list(
        ups.annotate(paired=Exists(downs)).values_list("paired", flat=True)[: bounded_count.COUNTED]
    )
    return any(searched) or len(searched) == bounded_count.COUNTED
