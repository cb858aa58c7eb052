"""The adapter: its layers, its computation, and its files in PEFT."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from tests.tiny import make_tiny_adapter, make_tiny_model
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import WEIGHTS, verify_adapter, write_adapter
from trainer.artifacts.merge import merge
from trainer.engine.adapters import read_adapter
from trainer.errors import BadArtifact
from trainer.models.layers import layer_shapes
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import Lora, LoraLinear, MasterWeights, adapter_config

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(base: LoadedBase) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base.model(IDS).logits
    return found


def randomise(lora: Lora) -> None:
    for parameter in lora.parameters().values():
        torch.nn.init.normal_(parameter, std=0.2)


# -- the layer


class Packed(nn.Linear):
    """A linear layer whose weight only the layer itself can read, like a 4-bit one."""

    compute_dtype = torch.float64

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        self.hidden = weight
        self.weight = nn.Parameter(torch.zeros(3, 1, dtype=torch.uint8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.hidden, self.bias)


def frozen_layer(kind: str) -> tuple[nn.Module, Tensor]:
    """Return a frozen layer of 5 inputs and 7 outputs in float64, and its weight as (out, in)."""
    weight = torch.randn(7, 5, dtype=torch.float64)
    layer: nn.Module
    if kind == "packed":
        layer = Packed(weight)
    elif kind == "Conv1D":
        layer = Conv1D(7, 5).double()
        layer.weight.data.copy_(weight.t())
    else:
        layer = nn.Linear(5, 7, bias=kind == "biased", dtype=torch.float64)
        layer.weight.data.copy_(weight)
    return layer.requires_grad_(False), weight


KINDS = ["plain", "biased", "Conv1D", "packed"]


@pytest.mark.parametrize("kind", KINDS)
def test_layer_computes_the_formula_and_its_gradients(kind: str) -> None:
    torch.manual_seed(3)
    frozen, weight = frozen_layer(kind)
    layer = LoraLinear(frozen, rank=2, alpha=3, dropout=0.0)
    assert layer.lora_a.dtype == layer.lora_b.dtype == torch.float64
    for parameter in (layer.lora_a, layer.lora_b):
        nn.init.normal_(parameter)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 3, 7, dtype=torch.float64)

    def naive(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        y = x @ weight.t() + 3 / 2 * (x @ a.t()) @ b.t()
        return y if frozen.bias is None else y + frozen.bias

    inputs = (x, layer.lora_a, layer.lora_b)
    expected = torch.autograd.grad((naive(*inputs) * upstream).sum(), inputs)
    torch.testing.assert_close(layer(x), naive(*inputs))
    found = torch.autograd.grad((layer(x) * upstream).sum(), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(lambda x, a, b: layer(x), inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_layer_needs_no_gradient_of_its_input(kind: str) -> None:
    frozen, _ = frozen_layer(kind)
    layer = LoraLinear(frozen, rank=2, alpha=4, dropout=0.0)
    nn.init.normal_(layer.lora_a)
    x = torch.randn(3, 5, dtype=torch.float64)
    layer(x).sum().backward()
    expected = 2 * torch.ones(7, 3, dtype=torch.float64) @ x @ layer.lora_a.t()
    torch.testing.assert_close(layer.lora_b.grad, expected)
    assert torch.equal(layer.lora_a.grad, torch.zeros(2, 5, dtype=torch.float64))  # B is zero


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_layer_equals_the_frozen_layer_bit_for_bit(kind: str) -> None:
    frozen, _ = frozen_layer(kind)
    layer = LoraLinear(frozen, rank=2, alpha=4, dropout=0.0)
    nn.init.normal_(layer.lora_a)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    assert not torch.allclose(layer(x), frozen(x))
    layer.active = False
    assert torch.equal(layer(x), frozen(x))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_applies_only_to_the_input_of_the_adapter(kind: str) -> None:
    frozen, weight = frozen_layer(kind)
    layer = LoraLinear(frozen, rank=2, alpha=4, dropout=0.5)
    nn.init.normal_(layer.lora_a)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(40, 5, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(11)
    thinned = F.dropout(x.detach(), 0.5)
    low = 2 * (thinned @ layer.lora_a.t()) @ layer.lora_b.t()
    torch.manual_seed(11)
    layer.train()
    found = layer(x)
    torch.testing.assert_close(found, frozen(x) + low)
    found.sum().backward()
    ones = torch.ones(40, 7, dtype=torch.float64)
    mask = thinned / x.detach()
    torch.testing.assert_close(
        x.grad, ones @ weight + mask * (2 * ones @ layer.lora_b @ layer.lora_a)
    )
    layer.eval()
    torch.testing.assert_close(layer(x), frozen(x) + 2 * (x @ layer.lora_a.t()) @ layer.lora_b.t())


# -- the adapter on a model


def test_adapter_is_on_attention_and_mlp_but_not_on_the_head(tiny: LoadedBase) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
    kinds = {name.rpartition(".")[2] for name in lora.layers}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(lora.layers) == 2 * 7
    trainable = {name for name, p in tiny.model.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * 2 * 7
    assert all("lora_" in name for name in trainable)


def test_new_adapter_equals_the_reference_and_a_seed_is_reproducible(tiny: LoadedBase) -> None:
    before = logits(tiny)
    lora = Lora.attach(tiny.model, rank=4, alpha=8, seed=7)
    assert torch.equal(logits(tiny), before)
    first = {name: p.detach().clone() for name, p in lora.parameters().items()}
    lora.detach()
    torch.manual_seed(123)  # earlier draws of the process must not matter
    again = Lora.attach(tiny.model, rank=4, alpha=8, seed=7).parameters()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_disabled_or_detached_adapter_equals_the_base(tiny: LoadedBase) -> None:
    before = logits(tiny)
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
    randomise(lora)
    assert not torch.allclose(logits(tiny), before)
    with lora.off():
        assert torch.equal(logits(tiny), before)
    assert not torch.allclose(logits(tiny), before)
    lora.detach()
    assert torch.equal(logits(tiny), before)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_loads_the_adapter_and_computes_the_same(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path, rslora: bool
) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8, rslora=rslora)
    randomise(lora)
    write_adapter(
        tmp_path / "adapter",
        name="starter@1",
        tensors=lora.parameters(),
        adapter_config=adapter_config(lora, base_model=str(tiny_dir)),
        base_model=str(tiny_dir),
        base_sha256=tiny.fingerprint,
        rank=4,
        created="2026-01-01T00:00:00+00:00",
        train={},
        card="card",
    )
    verify_adapter(tmp_path / "adapter", base_fingerprint=tiny.fingerprint, max_rank=4)
    other = load_base(str(tiny_dir), dtype="float32", device="cpu")
    peft = PeftModel.from_pretrained(other.model, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(peft(IDS).logits, logits(tiny))

    fresh = load_base(str(tiny_dir), dtype="float32", device="cpu")
    own = Lora.attach(fresh.model, rank=4, alpha=8, rslora=rslora)
    own.load(load_file(tmp_path / "adapter" / WEIGHTS))
    assert torch.equal(logits(fresh), logits(tiny))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_every_loader_scales_an_rslora_adapter_as_peft_does(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "adapter"
    make_tiny_adapter(directory, tiny, rank=9, rslora=True)  # α/r is 2, α/√r is 6
    other = load_base(str(tiny_dir), dtype="float32", device="cpu")
    peft = PeftModel.from_pretrained(other.model, directory)
    with torch.no_grad():
        expected = peft(IDS).logits
    with adapted(tiny, directory):
        torch.testing.assert_close(logits(tiny), expected)
    out = merge(str(tiny_dir), directory, tmp_path / "merged", dtype="float32")
    assert "s · B A with s = 6," in (out / "README.md").read_text()
    merged = load_base(str(out), dtype="float32", device="cpu")
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)

    _, weights = read_adapter(directory, tiny, layer_shapes(tiny.model))
    name = "model.layers.1.mlp.down_proj"
    a, scaled_b = weights[name]
    layer = peft.get_submodule(f"base_model.model.{name}")
    torch.testing.assert_close(scaled_b @ a, layer.get_delta_weight("default"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_adapter_of_some_layers_names_them_in_full_and_peft_agrees(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path
) -> None:
    only = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    lora = Lora.attach(tiny.model, rank=4, alpha=8, only=only)
    randomise(lora)
    assert list(lora.layers) == only
    config = adapter_config(lora, base_model=str(tiny_dir))
    assert config["target_modules"] == only  # `q_proj` would match layer 1 as well
    write_adapter(
        tmp_path / "adapter",
        name="starter@1",
        tensors=lora.parameters(),
        adapter_config=config,
        base_model=str(tiny_dir),
        base_sha256=tiny.fingerprint,
        rank=4,
        created="2026-01-01T00:00:00+00:00",
        train={},
        card="card",
    )
    other = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with adapted(other, tmp_path / "adapter"):
        assert torch.equal(logits(other), logits(tiny))
    peft = PeftModel.from_pretrained(other.model, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(peft(IDS).logits, logits(tiny))


def test_adapter_that_does_not_fit_leaves_the_base_unchanged(
    tiny: LoadedBase, tmp_path: Path
) -> None:
    make_tiny_adapter(tmp_path / "adapter", tiny)
    shallow = make_tiny_model(tmp_path / "shallow", layers=1)
    other = load_base(str(shallow), dtype="float32", device="cpu")
    with pytest.raises(BadArtifact) as caught, adapted(other, tmp_path / "adapter"):
        pass
    assert "trained on another base model" in str(caught.value)
    assert "model.layers.1.mlp.up_proj is no linear layer of the base" in str(caught.value)
    assert not any("lora" in name for name, _ in other.model.named_parameters())


def test_all_matrices_that_do_not_fit_are_reported_together(tiny: LoadedBase) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
    tensors = {name: p.detach().clone() for name, p in lora.parameters().items()}
    first, second, *_ = tensors
    tensors["base_model.model.elsewhere.lora_A.weight"] = tensors.pop(first)
    tensors[second] = tensors[second][:, :2]
    with pytest.raises(BadArtifact) as caught:
        lora.load(tensors)
    assert len(caught.value.faults) == 3
    for word in ("is missing", "fits no layer", "has shape"):
        assert word in str(caught.value)


def test_masters_keep_updates_that_bf16_would_round_away(tiny_dir: Path) -> None:
    base = load_base(str(tiny_dir), dtype="bfloat16", device="cpu")
    lora = Lora.attach(base.model, rank=4, alpha=8)
    masters = MasterWeights(lora)
    name, parameter = next(iter(lora.parameters().items()))
    assert parameter.dtype == torch.bfloat16
    assert masters.tensors[name].dtype == torch.float32
    masters.tensors[name].fill_(1.0)
    for _ in range(8):  # 1 + 2⁻¹⁰ is 1 in bf16, whose steps near 1 are 2⁻⁷
        masters.tensors[name].add_(2**-10)
    masters.publish()
    assert torch.all(parameter == 1 + 2**-7)


def test_masters_sum_gradients_over_micro_batches(tiny: LoadedBase) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
    masters = MasterWeights(lora)
    name, parameter = next(iter(lora.parameters().items()))
    for value in (1.0, 2.5):
        masters.add(masters.gradients_of(value * parameter.sum()))
        assert parameter.grad is None
    gradient = masters.tensors[name].grad
    assert gradient is not None
    assert torch.all(gradient == 3.5)
    masters.clear()
    assert torch.all(gradient == 0)
