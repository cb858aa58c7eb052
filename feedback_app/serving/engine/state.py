"""Which models an engine serves, for checks of the installation."""

import httpx

from feedback_app.serving.engine.stream import EngineError

SECONDS = 5.0


def engine_models(url: str) -> list[str]:
    """Return the names that an engine serves: its base model and the loaded adapters.

    Raises EngineError if it does not answer, or is no engine.
    """
    try:
        response = httpx.get(f"{url}/v1/models", timeout=SECONDS)
        response.raise_for_status()
        return [str(model["id"]) for model in response.json()["data"]]
    except httpx.HTTPStatusError as error:
        raise EngineError(f"HTTP status {error.response.status_code}.") from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{type(error).__name__}: {error}.") from error
