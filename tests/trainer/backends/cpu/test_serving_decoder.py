"""The compiled decoder agrees with transformers, and gives the same bits in any batch."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import make_tiny_model
from tests.trainer.conftest import needs_compiled
from trainer.backends import serving_decoder
from trainer.backends.base import AdapterWeights
from trainer.backends.cpu import loops
from trainer.backends.cpu import serving_decoder as decoding
from trainer.backends.cpu.serving_decoder import LlamaDecoder
from trainer.backends.torch_reference.adapters import AdapterStack
from trainer.engine.batch import Batch, Row
from trainer.engine.sampling import Sampling
from trainer.models.loading import LoadedBase, load_base

pytestmark = [needs_compiled, pytest.mark.slow]

LENGTHS = (5, 1, 40, 17, 33, 2, 9, 21, 13)


@pytest.fixture
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, 380, (length,), generator=generator).tolist() for length in LENGTHS]


def base_of(directory: Path, dtype: str = "float32") -> LoadedBase:
    return load_base(str(directory), dtype=dtype, device="cpu")


def made(shapes: dict[str, torch.Size], rank: int, seed: int, *, only: str = "") -> AdapterWeights:
    """Return an adapter of random matrices for the layers with `only` in their names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(rank, inputs, generator=generator) * 0.1,
            torch.randn(outputs, rank, generator=generator) * 0.1,
        )
        for name, (outputs, inputs) in shapes.items()
        if only in name
    }


def read(
    decoder: LlamaDecoder, prompts: Sequence[Sequence[int]], slots: Sequence[int], chunk: int = 100
) -> Tensor:
    """Return logits (rows, V) after prompts read together, `chunk` tokens of each at a time."""
    cache = decoder.cache(len(prompts), max(map(len, prompts)))
    scores: list[Tensor] = [torch.empty(0)] * len(prompts)
    for start in range(0, max(map(len, prompts)), chunk):
        left = [row for row, prompt in enumerate(prompts) if len(prompt) > start]
        assert chunk >= max(map(len, prompts)) or len(prompts) == 1
        parts = [prompts[row][start : start + chunk] for row in left]
        found = decoder(parts, [start] * len(left), [slots[row] for row in left], cache)
        for row, one in zip(left, found, strict=True):
            scores[row] = one
    return torch.stack(scores)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "pairs"), [("float32", None), ("bfloat16", 1), ("bfloat16", 0)])
def test_logits_equal_transformers(
    tiny_dir: Path,
    prompts: list[list[int]],
    dtype: str,
    pairs: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if pairs is not None:  # the other kind of product is used on other processors
        monkeypatch.setattr(decoding, "PAIRS", bool(pairs) and decoding.PAIRS)
    exact = base_of(tiny_dir, dtype).model.float()
    decoder = LlamaDecoder(base_of(tiny_dir, dtype).model)
    found = read(decoder, prompts, [0] * len(prompts))
    with torch.no_grad():
        expected = torch.stack([exact(torch.tensor([ids])).logits[0, -1] for ids in prompts])
    away = 1e-4 if dtype == "float32" else 0.1
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=away)
    assert expected.std() > 1, "logits vary by more than the tolerance"


def test_row_has_the_same_bits_in_any_batch(tiny_dir: Path, prompts: list[list[int]]) -> None:
    decoder = LlamaDecoder(base_of(tiny_dir, "bfloat16").model)
    first = decoder.attach(made(decoder.shapes, 4, 1))
    second = decoder.attach(made(decoder.shapes, 40, 2))
    slots = [0, first, second, first, 0, second, second, 0, first]
    together = read(decoder, prompts, slots)
    for ids, slot, scores in zip(prompts, slots, together, strict=True):
        assert torch.equal(read(decoder, [ids], [slot])[0], scores)
        assert torch.equal(read(decoder, [ids], [slot], chunk=6)[0], scores)
    assert not torch.equal(read(decoder, [prompts[2]], [0])[0], together[2])


def test_row_has_the_same_bits_with_any_number_of_threads(
    tiny_dir: Path, prompts: list[list[int]]
) -> None:
    """More threads than cores, so that they preempt each other at any point."""
    decoder = LlamaDecoder(base_of(tiny_dir).model)
    slot = decoder.attach(made(decoder.shapes, 3, 1))
    slots = [0, slot, 0, slot, 0, slot, 0, slot, 0]
    decoder._threads = 1
    alone = read(decoder, prompts, slots)
    for threads in (2, 3, 6):
        decoder._threads = threads
        for _ in range(20):
            assert torch.equal(read(decoder, prompts, slots), alone)


def test_late_thread_changes_nothing(
    tiny_dir: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = LlamaDecoder(base_of(tiny_dir).model)
    calls: list[tuple[Any, ...]] = []
    forward = loops.forward

    def noted(*given: Any) -> None:
        calls.append(given)
        forward(*given)

    monkeypatch.setattr(loops, "forward", noted)
    scores = read(decoder, prompts, [0] * len(prompts))
    kept = scores.clone()
    given = calls[-1]
    hidden = given[10].hidden.copy()
    forward(*given)
    assert torch.equal(scores, kept)
    assert (given[10].hidden == hidden).all()


@pytest.mark.parametrize("only", ["", "q_proj", "v_proj", "o_proj", "up_proj", "down_proj"])
@pytest.mark.parametrize("rank", [1, 40])
def test_adapters_equal_transformers(
    tiny_dir: Path, prompts: list[list[int]], only: str, rank: int
) -> None:
    """This holds for any rank and set of layers."""
    said = []
    for way in (AdapterStack, LlamaDecoder):
        base = base_of(tiny_dir)
        stack = way(base.model)
        slot = stack.attach(made(stack.shapes, rank, 5, only=only))
        other = stack.attach(made(stack.shapes, 2, 6))
        sampling = Sampling(max_tokens=6, temperature=0, ignore_eos=True, logprobs=0)
        rows = [
            Row.new(ids, sampling, tokenizer=base.tokenizer, eos=frozenset(), slot=one)
            for ids, one in zip(prompts[:4], (slot, 0, other, slot), strict=True)
        ]
        batch = Batch(base.model, stack)
        batch.join(rows)
        while batch.rows:
            batch.step()
        said.append([(row.token_ids, [score.logprob for score in row.scores]) for row in rows])
    for (tokens, scores), (other_tokens, other_scores) in zip(*said, strict=True):
        assert tokens == other_tokens
        assert scores == pytest.approx(other_scores, abs=2e-4)


def test_large_attention_scores_do_not_overflow(tiny_dir: Path, prompts: list[list[int]]) -> None:
    """exp of these attention scores overflows without a shift by the maximum."""
    bases = [base_of(tiny_dir), base_of(tiny_dir)]
    for base in bases:
        for layer in base.model.model.layers:
            layer.self_attn.q_proj.weight.data *= 100
    decoder = LlamaDecoder(bases[1].model)
    found = read(decoder, prompts, [0] * len(prompts))
    with torch.no_grad():
        expected = [bases[0].model(torch.tensor([ids])).logits[0, -1] for ids in prompts]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-2)


def test_one_of_two_rows_waiting_for_prefill_can_leave(
    tiny_dir: Path, prompts: list[list[int]]
) -> None:
    base = base_of(tiny_dir)
    batch = Batch(base.model, LlamaDecoder(base.model))
    sampling = Sampling(max_tokens=5, temperature=0, ignore_eos=True)
    first, second, alone = (
        Row.new(ids, sampling, tokenizer=base.tokenizer, eos=frozenset())
        for ids in (prompts[2], prompts[3], prompts[3])
    )
    batch.begin([first, second])
    batch.leave(first)
    while batch.reading or batch.rows:
        _ = batch.read() if batch.reading else batch.step()
    batch.join([alone])
    while batch.rows:
        batch.step()
    assert first.token_ids == []
    assert second.token_ids == alone.token_ids
    assert len(alone.token_ids) == 5


def test_base_is_held_in_memory_once(tiny_dir: Path) -> None:
    base = base_of(tiny_dir)
    decoder = LlamaDecoder(base.model)
    layers = [base.model.get_submodule(name) for name in decoder.shapes]
    assert len(layers) == 14
    assert {layer.weight.device.type for layer in layers} == {"meta"}
    assert base.model.lm_head.weight is base.model.model.embed_tokens.weight


def test_full_cache_is_refused(tiny_dir: Path) -> None:
    decoder = LlamaDecoder(base_of(tiny_dir).model)
    cache = decoder.cache(1, 10)
    room = cache.layers[0].keys.shape[2]
    decoder([[5]], [room - 1], [0], cache)
    for parts, starts in (([[5]], [room]), ([[5, 5]], [room - 1]), ([[5], [5]], [3, 3])):
        with pytest.raises(ValueError, match="no room"):
            decoder(parts, starts, [0] * len(parts), cache)
    with pytest.raises(IndexError):
        decoder([[384]], [0], [0], cache)


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({}, True),
        ({"hidden_act": "gelu"}, False),
        ({"head_dim": 24}, False),
        ({"head_dim": 48}, True),
        ({"dtype": torch.float16}, False),
        ({"attention_bias": True, "mlp_bias": True}, True),
    ],
)
def test_unsupported_architectures_use_transformers(changed: dict[str, Any], known: bool) -> None:
    sizes = {
        "vocab_size": 70,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.3,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **changed})).eval()
    model = model.to(changed.get("dtype", torch.float32))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    ids = [3, 8, 60, 5]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1]
    stack = serving_decoder(model)
    assert isinstance(stack, LlamaDecoder) == known
    if isinstance(stack, LlamaDecoder):
        found = stack([ids], [0], [0], stack.cache(1, 4))[0]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of mappings")
def test_weights_file_is_unmapped_after_packing(tmp_path: Path) -> None:
    def is_mapped() -> bool:
        return str(tmp_path.resolve()) in Path("/proc/self/maps").read_text()

    base = base_of(make_tiny_model(tmp_path / "tiny"))
    assert is_mapped(), "with the file's type the weights are views of the mapping"
    decoder = LlamaDecoder(base.model)
    gc.collect()
    assert not is_mapped()
    assert read(decoder, [[5, 6, 7]], [0]).isfinite().all()
