"""The adapters an engine holds: verified on load, immutable, several in one batch."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from trainer.artifact import Manifest, verify_adapter
from trainer.errors import BadArtifact
from trainer.model import LoadedBase

MAX_RANK = 256
BASE = "__base__"  # what PEFT calls a row without an adapter


@dataclass(frozen=True)
class HeldAdapter:
    """One loaded adapter. `internal` is PEFT's name for it, of fixed width: PEFT compares names
    as substrings in places, so none may be a prefix of another."""

    name: str
    path: Path
    internal: str
    manifest: Manifest


class AdapterPool:
    """Owned by the scheduler's thread, like the model itself."""

    def __init__(self, base: LoadedBase, artifact_root: Path) -> None:
        self.base = base
        self.artifact_root = artifact_root.resolve()
        self.model: Any = base.model
        self.held: dict[str, HeldAdapter] = {}
        self.loads = 0
        self._active: str | None = None

    def load(self, name: str, path: str) -> HeldAdapter:
        """Verifies and loads an adapter; the same name and path again is the same adapter.

        Raises BadArtifact with every fault: outside the artifact root, another path under a
        known name, anything verify_adapter finds.
        """
        directory = self.inside_root(path)
        known = self.held.get(name)
        if known is not None:
            if known.path != directory:
                raise BadArtifact(
                    f"{name} is loaded from {known.path.name}: names are immutable, load "
                    "the other directory under a new name",
                    path=directory,
                )
            return known
        manifest = verify_adapter(
            directory, base_fingerprint=self.base.fingerprint, max_rank=MAX_RANK
        )
        if manifest.name != name:
            raise BadArtifact(
                f"the directory holds {manifest.name!r}, not {name!r}", path=directory
            )
        self.loads += 1
        internal = f"a{self.loads:06d}"
        if isinstance(self.model, PeftModel):
            self.model.load_adapter(directory, adapter_name=internal, autocast_adapter_dtype=False)
        else:
            self.model = PeftModel.from_pretrained(
                self.model, directory, adapter_name=internal, autocast_adapter_dtype=False
            )
        for key, weight in self.model.named_parameters():
            if internal in key:
                weight.data = weight.data.to(self.base.device, self.base.dtype)
        self.model.eval()
        self._active = None
        self.held[name] = HeldAdapter(name, directory, internal, manifest)
        return self.held[name]

    def unload(self, name: str) -> None:
        """Frees the adapter's weights. Nobody may be using it."""
        held = self.held.pop(name)
        if self.held:
            self.model.delete_adapter(held.internal)
        else:
            # the last one: back to the bare base, which is also the faster one
            self.model = self.model.unload()
        self._active = None

    def inside_root(self, path: str) -> Path:
        """The resolved directory; raises BadArtifact if it lies outside the artifact root."""
        directory = (self.artifact_root / path).resolve()
        if not directory.is_relative_to(self.artifact_root) or directory == self.artifact_root:
            raise BadArtifact("it lies outside the artifact root", path=directory)
        return directory

    def for_rows(
        self, names: list[str | None]
    ) -> tuple[AbstractContextManager[Any], dict[str, Any]]:
        """How the forward of a batch is run: row i with adapter names[i] (PEFT's names)."""
        if not isinstance(self.model, PeftModel):
            return nullcontext(), {}
        wanted = set(names)
        if len(wanted) > 1:
            return nullcontext(), {"adapter_names": [name or BASE for name in names]}
        (only,) = wanted
        if only is None:
            return self._without_adapters(), {}
        if self._active != only:
            self.model.set_adapter(only, inference_mode=True)
            self._active = only
        return nullcontext(), {}

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        with self.model.disable_adapter():
            yield
