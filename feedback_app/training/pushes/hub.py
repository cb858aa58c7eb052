"""Files in a repository of a model hub, through huggingface_hub.

Workers have that library with transformers; the web image does not, so it is imported on use. It
reads HF_TOKEN; HF_ENDPOINT names another hub.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from feedback_app.web.errors import UserError


def hub_here() -> bool:
    """Return whether this process can push to a hub."""
    return find_spec("huggingface_hub") is not None


def hub_push(repository: str, files: Mapping[str, Path | bytes], *, message: str) -> str:
    """Commit the files to a repository, `owner/name`, and return the commit's URL.

    A repository that does not exist is created as a private one. Nothing is there before the
    commit, and all of it after. Raises UserError with what the hub says.
    """
    if not hub_here():
        raise UserError("huggingface_hub is not installed where this worker runs.")
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    additions = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in files.items()
    ]
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.create_commit(repository, additions, commit_message=message)
    # the library raises those of its HTTP client, its own, and ValueError for what a hub refuses
    except Exception as error:
        cause = f" {error.__cause__}" if error.__cause__ is not None else ""
        said = f"{type(error).__name__}): {error}{cause}"
        raise UserError(f"The hub did not take the files ({said[:600].strip()}") from error
    return str(commit.commit_url)
