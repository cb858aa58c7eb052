"""Which models an engine serves, for checks of the installation."""

from typing import Any

import httpx

from feedback_app.serving.engine.stream import EngineError

SECONDS = 5.0


def engine_models(url: str) -> list[str]:
    """Return the names that an engine serves: its base model and the loaded adapters.

    Raises EngineError if it does not answer, or is no engine.
    """
    return list(_models(url))


def engine_quantisation(url: str, base_model: str) -> str:
    """Return how an engine holds its base model: "4bit", "none", or "" where it does not say so
    (vLLM), or serves another model. Raises EngineError as engine_models does."""
    entry = _models(url).get(base_model, {})
    return str(entry["quantisation"] or "none") if "quantisation" in entry else ""


def engine_memory(url: str) -> int | None:
    """Return the bytes of memory that an engine's process takes, as its metrics say; None where
    they do not, or it does not answer. Memory of GPUs is not part of it."""
    try:
        response = httpx.get(f"{url}/metrics", timeout=SECONDS)
        response.raise_for_status()
    except httpx.HTTPError:
        return None
    for line in response.text.splitlines():
        name, _, value = line.partition(" ")
        if name == "process_resident_memory_bytes":
            try:
                return int(float(value))
            except ValueError:
                return None
    return None


def _models(url: str) -> dict[str, dict[str, Any]]:
    """Return what an engine says of its models, by name. Raises EngineError."""
    try:
        response = httpx.get(f"{url}/v1/models", timeout=SECONDS)
        response.raise_for_status()
        return {str(model["id"]): dict(model) for model in response.json()["data"]}
    except httpx.HTTPStatusError as error:
        raise EngineError(f"HTTP status {error.response.status_code}.") from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{type(error).__name__}: {error}.") from error
