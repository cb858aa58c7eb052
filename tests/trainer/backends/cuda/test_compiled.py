"""Compiled decoder layers on the CPU: torch traces them for all lengths at once, and what it traced
computes the same. Its kernels for GPUs are not run here."""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import make_random_model
from tests.trainer.conftest import MakeRun, events
from tests.trainer.models.test_families import FAMILIES, OFTEN
from trainer.backends import VARIABLE
from trainer.backends.cuda.compiled import compilable, compile_layers
from trainer.config import TrainConfig
from trainer.errors import Refused, RunFailed
from trainer.forward.logprobs import Row, as_forest, score, shares_prefixes
from trainer.models.loading import LoadedBase, load_base
from trainer.models.peft_lora import PeftLora
from trainer.training.activation_checkpointing import checkpointed_layers
from trainer.training.train import train

pytestmark = [
    pytest.mark.slow,
    # torch's own, while it traces
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]

PROMPT = tuple(range(20, 45))
PACKS: list[list[Row]] = [
    [((*PROMPT[:20], 41, 42), (50, 51, 52)), ((*PROMPT[:20], 43), (60, 61, 62, 63))],
    [((*PROMPT, 41, 42), (50, 51, 52)), ((*PROMPT, 43), (60, 61, 9, 8)), ((5, 6, 7), (9, 10))],
    [((7, 8, 9), (10,))],
]


@pytest.fixture(autouse=True)
def _forget_compiled_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "torch_reference")
    yield
    torch.compiler.reset()


class Graphs:
    """A compiler that runs each graph as it was traced, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Any:
        self.count += 1
        return graph.forward


def make_family(directory: Path, name: str) -> Path:
    make_random_model(directory, FAMILIES[name].config, FAMILIES[name].sizes)
    return directory


def computed(path: Path, compiler: Graphs | str | None) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of policy and reference and the adapter's gradient, of packs of
    different lengths, held and checkpointed."""
    base: LoadedBase = load_base(str(path), dtype="float32", device="cpu")
    shares_prefixes(base.model)
    lora = PeftLora.attach(base.model, rank=2, alpha=4)
    generator = torch.Generator().manual_seed(3)
    for parameter in lora.parameters().values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    if compiler is not None:
        compile_layers(base.model, compiler=compiler)
    values = []
    for rows in PACKS:
        found = score(base.model, rows, keep=True).logprobs.values
        found.sum().backward()
        packed = as_forest(base.model) if shares_prefixes(base.model) else nullcontext()
        with packed, checkpointed_layers(base.model):
            score(base.model, rows).logprobs.values.sum().backward()
        with torch.no_grad(), lora.off():
            values += [found.detach(), score(base.model, rows).logprobs.values]
    slopes = [parameter.grad for parameter in lora.parameters().values()]
    return torch.cat(values), torch.cat([slope.flatten() for slope in slopes if slope is not None])


@pytest.mark.parametrize(
    "family",
    [name if name in OFTEN else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES],
)
def test_layers_are_traced_once_for_all_lengths_and_compute_the_same(
    tmp_path: Path, family: str
) -> None:
    path = make_family(tmp_path / family, family)
    graphs = Graphs()
    expected, slopes = computed(path, None)
    found, found_slopes = computed(path, graphs)
    assert torch.equal(found, expected)
    assert torch.equal(found_slopes, slopes)
    # each kind of part: as the policy, as the policy without gradients, as the reference
    assert 1 <= graphs.count <= 12, graphs.count


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs by a C++ compiler")
def test_kernels_for_cpus_compute_the_same_up_to_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    path = make_family(tmp_path / "Llama", "Llama")
    expected, slopes = computed(path, None)
    found, found_slopes = computed(path, "inductor")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_slopes, slopes, atol=1e-4, rtol=1e-4)


def test_attention_and_experts_are_left_out(tmp_path: Path) -> None:
    base = load_base(str(make_family(tmp_path / "m", "Mixtral")), dtype="float32", device="cpu")
    names = [
        name
        for name, part in base.model.get_decoder().layers[0].named_children()
        if part in compilable(base.model.get_decoder().layers[0])
    ]
    assert names == ["input_layernorm", "post_attention_layernorm"]


def test_compiler_that_does_not_work_is_named(tiny: LoadedBase, tiny_dir: Path) -> None:
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")

    def broken(graph: Any, inputs: list[Tensor]) -> Any:
        raise OSError("no compiler found")

    with pytest.raises(RunFailed, match=r"does not work here \(.*set compile to false"):
        compile_layers(base.model, compiler=broken)


def test_run_on_a_cpu_says_that_nothing_is_compiled(make_run: MakeRun) -> None:
    run_dir = make_run(compile=True, epochs=1)
    train(run_dir)
    messages = [event["message"] for event in events(run_dir, "warning")]
    assert "compile has no effect on cpu: its layers are left as they are" in messages
    assert events(run_dir, "done")


def test_compile_is_a_boolean_and_excludes_what_was_not_tried() -> None:
    with pytest.raises(Refused, match="compile must be true or false"):
        TrainConfig("some/model", "starter@1", compile="yes")  # type: ignore[arg-type]
    for other in ({"fsdp": True}, {"quantisation": "4bit"}):
        with pytest.raises(Refused, match="compile was not tried on a base that fsdp spreads"):
            TrainConfig("some/model", "starter@1", compile=True, **other)
