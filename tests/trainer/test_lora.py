"""The adapter: where it sits, what it computes, what PEFT makes of its files."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from trainer.artifact import WEIGHTS, verify_adapter, write_adapter
from trainer.errors import BadArtifact
from trainer.lora import Lora, MasterWeights, adapter_config
from trainer.model import LoadedBase, load_base

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(base: LoadedBase) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base.model(IDS).logits
    return found


def randomise(lora: Lora) -> None:
    for parameter in lora.parameters().values():
        torch.nn.init.normal_(parameter, std=0.2)


def test_adapter_sits_on_attention_and_mlp_but_not_on_the_head(tiny: LoadedBase) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
    kinds = {name.rpartition(".")[2] for name in lora.layers}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(lora.layers) == 2 * 7
    trainable = {name for name, p in tiny.model.named_parameters() if p.requires_grad}
    assert len(trainable) == 2 * 2 * 7
    assert all("lora_" in name for name in trainable)


def test_fresh_adapter_is_the_reference_and_a_seed_repeats_itself(tiny: LoadedBase) -> None:
    before = logits(tiny)
    lora = Lora.attach(tiny.model, rank=4, alpha=8, seed=7)
    assert torch.equal(logits(tiny), before)
    first = {name: p.detach().clone() for name, p in lora.parameters().items()}
    lora.detach()
    torch.manual_seed(123)  # whatever the process drew before must not matter
    again = Lora.attach(tiny.model, rank=4, alpha=8, seed=7).parameters()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_adapter_switched_off_or_detached_is_the_base(tiny: LoadedBase) -> None:
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
def test_peft_reads_the_adapter_and_computes_the_same(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path
) -> None:
    lora = Lora.attach(tiny.model, rank=4, alpha=8)
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
    own = Lora.attach(fresh.model, rank=4, alpha=8)
    own.load(load_file(tmp_path / "adapter" / WEIGHTS))
    assert torch.equal(logits(fresh), logits(tiny))


def test_matrices_that_do_not_fit_are_refused_all_together(tiny: LoadedBase) -> None:
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


def test_masters_keep_what_bf16_would_lose(tiny_dir: Path) -> None:
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
        parameter.grad = torch.full_like(parameter, value)
        masters.collect()
        assert parameter.grad is None
    gradient = masters.tensors[name].grad
    assert gradient is not None
    assert torch.all(gradient == 3.5)
    masters.clear()
    assert torch.all(gradient == 0)
