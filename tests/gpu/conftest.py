"""Models on disk, and compiled kernels that no earlier test has used up."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.gpu.device import base_dir

MakeBase = Callable[[str], Path]


@pytest.fixture(scope="session")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> MakeBase:
    """Return a function that saves a family's model once and returns its directory."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = base_dir(tmp_path_factory.mktemp("models") / family, family)
        return made[family]

    return make


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Forget compiled kernels: torch compiles a function for a limited number of kinds of inputs,
    and all tests together have more of them than a run."""
    yield
    torch.compiler.reset()
