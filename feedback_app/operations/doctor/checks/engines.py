"""Checks of the engines and the base models."""

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db.models import F

from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.operations.doctor.findings import Problem, listed, reason
from feedback_app.serving.engine.client import EngineError, engine_urls
from feedback_app.serving.engine.state import engine_models, engine_quantisation
from feedback_app.training.models import Adapter


def engines() -> Iterator[tuple[str, str, list[str] | EngineError]]:
    """Yield each engine's base model and URL, and the models that it serves or its error."""
    for base_model in settings.ENGINES:
        for url in engine_urls(base_model):
            try:
                yield base_model, url, engine_models(url)
            except EngineError as error:
                yield base_model, url, error


def reachable() -> Iterator[Problem]:
    for base_model, url, found in engines():
        if isinstance(found, EngineError):
            yield Problem(
                f"The engine of {base_model} at {url} does not answer: {reason(found)}.",
                "Start it, wait until it has loaded the model, or compare ENGINES and ENGINE_URL.",
            )


def base_models() -> Iterator[Problem]:
    for base_model, url, found in engines():
        if not isinstance(found, EngineError) and base_model not in found:
            yield Problem(
                f"The engine at {url} serves {listed(found) or 'nothing'}, not {base_model}.",
                "Start it with --served-model-name of that model, or correct ENGINES.",
            )


def projects_without_engine() -> Iterator[Problem]:
    kept = Project.objects.filter(deletion=None)
    wanted = kept.exclude(base_model__in=list(settings.ENGINES))
    for slug, base_model in wanted.order_by("pk").values_list("slug", "base_model"):
        yield Problem(
            f"The project {slug} uses {base_model}, which no engine serves: its demo fails.",
            "Add an engine for that model to ENGINES.",
        )


def live_adapters_loaded() -> Iterator[Problem]:
    live = Project.objects.exclude(live_version=BASE_VERSION)
    names = list(live.order_by("pk").values_list("base_model", "live_version"))
    for base_model, url, found in engines():
        if isinstance(found, EngineError):
            continue
        missing = [name for base, name in names if base == base_model and name not in found]
        if missing:
            yield Problem(
                f"The engine at {url} has not loaded {listed(missing)}: the first answer is slow.",
                "Ask the demo one question; if this stays, look at the engine's log.",
                warning=True,
            )


def live_adapters_quantised() -> Iterator[Problem]:
    """The gate has judged a version on the base that it was trained on."""
    live = Adapter.objects.filter(name=F("project__live_version")).order_by("pk")
    rows = list(live.values_list("name", "project__base_model", "run__config"))
    for base_model, url, found in engines():
        if isinstance(found, EngineError):
            continue
        held = engine_quantisation(url, base_model)
        for name, base, config in rows:
            trained = config.get("quantisation") or "none"
            if held and base == base_model and trained != held:
                yield Problem(
                    f"{name} was trained and judged with quantisation {trained}, but the engine at "
                    f"{url} holds {base_model} with quantisation {held}.",
                    f"Start the engine with ENGINE_QUANTISATION={trained}.",
                    warning=True,
                )


def model_directories() -> Iterator[Problem]:
    """A name with a slash is a hub's id or a path; others are directories under var/models."""
    kept = Project.objects.filter(deletion=None)
    names = {settings.BASE_MODEL, *kept.values_list("base_model", flat=True)}
    for name in sorted(names):
        directory = Path(settings.MODELS_ROOT) / name
        if not (directory / "config.json").exists() and ("/" not in name or directory.exists()):
            yield Problem(
                f"There is no base model in {directory}: runs on {name} fail.",
                "Run `make demo` once, or put the model's files there.",
            )
