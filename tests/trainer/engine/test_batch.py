"""Rows that share a batch give the same answers as rows alone."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import needs_compiled
from trainer.backends import serving_decoder
from trainer.backends.base import Decoder
from trainer.backends.torch_reference.adapters import AdapterStack
from trainer.data.chat import eos_ids, prompt_ids
from trainer.engine.adapters import read_adapter
from trainer.engine.batch import Batch, Row, context_length, prefill_group
from trainer.engine.prefix_cache import PrefixCache
from trainer.engine.sampling import Sampling
from trainer.errors import BadArtifact, Refused, RunFailed
from trainer.evaluation.generate import generate
from trainer.models.loading import LoadedBase, load_base

QUESTIONS = (
    "Bread?",
    "What is the capital of France, and which river runs through it?",
    "Write a short answer and stop when it is said. " * 3,
    "Hello 🙂",
)
GREEDY = Sampling(max_tokens=24, temperature=0)


def prompts(base: LoadedBase) -> list[list[int]]:
    return [
        prompt_ids(base.tokenizer, [{"role": "user", "content": question}])
        for question in QUESTIONS
    ]


def lone(model: torch.nn.Module, ids: list[int], tokens: int = 24) -> list[int]:
    """Return the tokens of transformers' own generate for one prompt."""
    given = torch.tensor([ids])
    said = model.generate(  # type: ignore[operator]
        given, attention_mask=torch.ones_like(given), max_new_tokens=tokens, do_sample=False
    )
    return [int(token) for token in said[0, len(ids) :]]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_greedy_answers_equal_a_lone_generate_of_transformers(
    tiny: LoadedBase, batch_size: int
) -> None:
    given = prompts(tiny) * 2
    answers = generate(tiny.model, tiny.tokenizer, given, GREEDY, batch_size=batch_size)
    expected = [lone(tiny.model, ids) for ids in given]
    assert [list(answer.token_ids) for answer in answers] == expected
    assert len({answer.token_ids for answer in answers}) == len(QUESTIONS)


@pytest.mark.slow
def test_rows_that_join_and_leave_do_not_change_others(tiny: LoadedBase) -> None:
    batch = Batch(tiny.model)
    eos = eos_ids(tiny.model, tiny.tokenizer)
    rows = [
        Row.new(ids, Sampling(max_tokens=tokens, temperature=0), tokenizer=tiny.tokenizer, eos=eos)
        for ids, tokens in zip(prompts(tiny), (40, 9, 30, 30), strict=True)
    ]
    batch.join(rows[:2])
    for _ in range(4):
        batch.step()
    batch.join([rows[2]])
    for _ in range(3):
        batch.step()
    batch.leave(rows[2])  # cancelled halfway
    batch.join([rows[3]])
    while batch.rows:
        batch.step()
    for row, tokens in ((rows[0], 40), (rows[1], 9), (rows[3], 30)):
        assert row.token_ids == lone(tiny.model, list(row.prompt), tokens)
    assert rows[2].token_ids == lone(tiny.model, list(rows[2].prompt), 30)[:4]


def test_first_of_several_rows_can_leave(tiny: LoadedBase) -> None:
    """Its slot is given to the last row, which moves there with its keys and values."""
    batch = Batch(tiny.model)
    eos = eos_ids(tiny.model, tiny.tokenizer)
    rows = [
        Row.new(ids, Sampling(max_tokens=20, temperature=0), tokenizer=tiny.tokenizer, eos=eos)
        for ids in prompts(tiny)[:3]
    ]
    batch.join(rows)
    for _ in range(4):
        batch.step()
    batch.leave(rows[0])
    assert batch.rows == [rows[2], rows[1]]
    while batch.rows:
        batch.step()
    for row in rows[1:]:
        assert row.token_ids == lone(tiny.model, list(row.prompt), 20)


def test_long_prompt_is_read_in_chunks_between_the_steps_of_others(tiny: LoadedBase) -> None:
    batch = Batch(tiny.model)
    eos = eos_ids(tiny.model, tiny.tokenizer)
    long = (prompts(tiny)[2] * 6)[:400]
    short, newcomer, late = (
        Row.new(ids, Sampling(max_tokens=30, temperature=0), tokenizer=tiny.tokenizer, eos=eos)
        for ids in (prompts(tiny)[0], long, prompts(tiny)[3])
    )
    batch.join([short])
    batch.begin([newcomer])
    batch.begin([late])
    seen = []
    while batch.reading:
        moved = batch.read(tokens=64)
        seen.append([row for row, _ in moved])
        batch.step()
    # the later prompt was read after the first chunk; seven chunks make 400 tokens
    assert seen == [[], [late], [], [], [], [], [], [newcomer]]
    assert len(short.token_ids) == 9
    while batch.rows:
        batch.step()
    for row in (short, newcomer, late):
        assert row.token_ids == lone(tiny.model, list(row.prompt), 30)


def test_row_can_leave_during_prefill(tiny: LoadedBase) -> None:
    batch = Batch(tiny.model)
    row = Row.new([5] * 200, GREEDY, tokenizer=tiny.tokenizer, eos=frozenset())
    batch.begin([row])
    assert batch.read(tokens=64) == []
    batch.leave(row)
    assert (batch.reading, batch.rows) == (0, [])


def test_cache_of_earlier_turns_is_bounded() -> None:
    layers = [(torch.zeros(1, 1, 100, 2), torch.zeros(1, 1, 100, 2))]
    cache = PrefixCache(positions=250)
    first, second, third = ([start, *range(1, 100)] for start in (1000, 2000, 3000))
    for ids in (first, second):
        cache.store(1, ids, layers)
    assert cache.find(1, [*first, 7])[0] == 100  # and `first` is now the most recently used
    cache.store(1, third, layers)
    assert cache.positions == 200
    assert [cache.find(1, [*ids, 7])[0] for ids in (first, second, third)] == [100, 0, 100]
    assert cache.find(2, [*first, 7]) == (0, ())
    assert cache.find(1, first)[0] == 99, "the last token is always computed"
    cache.store(1, [*first, 7, 8], layers)
    assert cache.positions == 202, "a conversation is cached once, at its longest"
    cache.store(1, list(range(300)), layers)
    assert cache.positions == 202, "entries above the limit are not cached"
    cache.drop(1)
    assert cache.positions == 0


@pytest.mark.slow
def test_seeded_answers_do_not_depend_on_the_batch(tiny: LoadedBase) -> None:
    sampling = Sampling(max_tokens=16, temperature=1.0, top_p=0.9, seed=5)
    given = [prompts(tiny)[0]] * 6
    by_size = [
        [a.text for a in generate(tiny.model, tiny.tokenizer, given, sampling, batch_size=size)]
        for size in (1, 4, 6)
    ]
    assert by_size[0] == by_size[1] == by_size[2]
    assert len(set(by_size[0])) > 1, "each answer has its own random stream"


def test_completed_answer_keeps_its_end_token(tiny: LoadedBase) -> None:
    said = lone(tiny.model, prompts(tiny)[0])
    tiny.model.generation_config.eos_token_id = [tiny.tokenizer.eos_token_id, said[5]]
    try:
        (answer,) = generate(tiny.model, tiny.tokenizer, prompts(tiny)[:1], GREEDY)
    finally:
        tiny.model.generation_config.eos_token_id = tiny.tokenizer.eos_token_id
    assert answer.finish_reason == "stop"
    assert list(answer.token_ids) == said[: said.index(said[5]) + 1]
    assert generate(tiny.model, tiny.tokenizer, prompts(tiny)[:1], GREEDY)[0].finish_reason == (
        "length"
    )


def test_progress_counts_every_answer(tiny: LoadedBase) -> None:
    seen: list[tuple[int, int]] = []
    generate(
        tiny.model,
        tiny.tokenizer,
        prompts(tiny),
        GREEDY,
        batch_size=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (4, 4)
    assert seen == sorted(set(seen))


def test_prompts_that_do_not_fit_are_refused_by_number(tiny: LoadedBase) -> None:
    with pytest.raises(Refused, match=r"prompt 1 has 600 tokens.*prompt 2 has 0"):
        generate(tiny.model, tiny.tokenizer, [[5], [5] * 600, []], GREEDY)


def test_answers_end_at_the_context_length(tiny: LoadedBase) -> None:
    long = [5] * (context_length(tiny.model) - 3)
    (answer,) = generate(tiny.model, tiny.tokenizer, [long], GREEDY)
    assert len(answer.token_ids) <= 3


def test_weights_that_are_not_finite_raise_an_error(tiny_dir: Path) -> None:
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    base.model.model.norm.weight.data.fill_(torch.nan)
    with pytest.raises(RunFailed, match="NaN"):
        generate(base.model, base.tokenizer, prompts(base)[:1], GREEDY)


def test_prefill_takes_at_least_one_row_and_stays_within_its_budget(tiny: LoadedBase) -> None:
    def row(length: int) -> Row:
        return Row.new([5] * length, GREEDY, tokenizer=tiny.tokenizer, eos=frozenset())

    assert prefill_group([row(4000), row(10)], 8) == 1
    assert prefill_group([row(100)] * 20, 8) == 8
    assert prefill_group([row(300)] * 8, 8) == 3
    assert prefill_group([row(10)], 0) == 0


# -- adapters


@pytest.fixture(params=[AdapterStack, pytest.param(serving_decoder, marks=needs_compiled)])
def adapted(
    tiny_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[LoadedBase, Decoder, dict[int, Path]]:
    """A base that serves three adapters of different rank, by transformers and by the compiled
    decoder; one adapter changes only some layers."""
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    only = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    directories = [tmp_path / f"p@{number}" for number in (1, 2, 3)]
    for number, directory in enumerate(directories, 1):
        make_tiny_adapter(
            directory,
            base,
            name=directory.name,
            seed=number,
            rank=2 * number,
            layers=only if number == 3 else None,
            rslora=number == 2,
        )
    stack: Decoder = request.param(base.model)
    slots = {}
    for directory in directories:
        _, weights = read_adapter(directory, base, stack.shapes, name=directory.name)
        slots[stack.attach(weights)] = directory
    return base, stack, slots


def run(base: LoadedBase, stack: Decoder, slots: list[int]) -> list[list[int]]:
    eos = eos_ids(base.model, base.tokenizer)
    rows = [
        Row.new(ids, GREEDY, tokenizer=base.tokenizer, eos=eos, slot=slot)
        for ids, slot in zip(prompts(base), slots, strict=True)
    ]
    batch = Batch(base.model, stack)
    batch.join(rows[:2])
    batch.step()
    batch.join(rows[2:])
    while batch.rows:
        batch.step()
    return [row.token_ids for row in rows]


# PEFT reads an attribute of transformers that is deprecated
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_mixed_adapters_give_the_same_answers_as_peft(
    adapted: tuple[LoadedBase, Decoder, dict[int, Path]], tiny_dir: Path
) -> None:
    base, stack, slots = adapted
    mixture = [0, *slots]
    expected = []
    for slot, ids in zip(mixture, prompts(base), strict=True):
        plain = load_base(str(tiny_dir), dtype="float32", device="cpu").model
        model = PeftModel.from_pretrained(plain, slots[slot]) if slot else plain
        expected.append(lone(model.eval(), ids))
    assert run(base, stack, mixture) == expected


def test_batches_with_one_adapter_and_without_adapters(
    adapted: tuple[LoadedBase, Decoder, dict[int, Path]],
) -> None:
    base, stack, slots = adapted
    first = next(iter(slots))
    by_base, by_first = run(base, stack, [0] * 4), run(base, stack, [first] * 4)
    assert all(a != b for a, b in zip(by_base, by_first, strict=True))
    mixed = run(base, stack, [0, first, 0, first])
    assert mixed == [by_base[0], by_first[1], by_base[2], by_first[3]]


def test_detaching_an_adapter_does_not_change_others(
    adapted: tuple[LoadedBase, Decoder, dict[int, Path]],
) -> None:
    base, stack, slots = adapted
    first, second, third = slots
    before = run(base, stack, [0, first, second, third])
    stack.detach(second)
    after = run(base, stack, [0, first, 0, third])
    assert [after[0], after[1], after[3]] == [before[0], before[1], before[3]]
    assert stack.slots == [first, third]


def test_adapter_that_does_not_fit_is_refused_with_all_reasons(
    adapted: tuple[LoadedBase, Decoder, dict[int, Path]],
) -> None:
    base, stack, slots = adapted
    shapes = dict(stack.shapes)
    odd = "model.layers.0.self_attn.q_proj"
    shapes[odd] = torch.Size((7, 64))
    del shapes["model.layers.1.mlp.down_proj"]
    with pytest.raises(BadArtifact) as caught:
        read_adapter(next(iter(slots.values())), base, shapes, name="other@1")
    assert "it is p@1, not other@1" in str(caught.value)
    assert f"{odd} is for a layer of 64×64, here it has 7×64" in str(caught.value)
    assert "model.layers.1.mlp.down_proj is no linear layer" in str(caught.value)


def test_recurrent_model_is_refused() -> None:
    class Recurrent:
        _is_stateful = True

    with pytest.raises(Refused, match="recurrent"):
        context_length(Recurrent())


def test_layers_with_the_same_input_share_one_product(tiny_dir: Path) -> None:
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    layers = list(AdapterStack(base.model).layers.values())
    products = {id(layer.pairs) for layer in layers}
    assert (len(layers), len(products)) == (14, 8), "q, k, v are one product and gate, up are one"
    # no second copy of the base: packed weights are freed
    assert {layer.frozen.weight.device.type for layer in layers} == {"meta"}
    assert base.model.lm_head.weight is base.model.model.embed_tokens.weight
