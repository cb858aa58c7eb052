"""One of several processes that shard base models and compare the results with the whole model:
`accelerate launch -m tests.trainer.distributed.sharing OUT MODEL…` writes OUT/<rank>.json."""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.fsdp import load_sharded
from trainer.distributed.process_group import ProcessGroup
from trainer.evaluation.generate import Sampling, generate
from trainer.forward.logprobs import Row, as_forest, score, shares_prefixes
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import Lora
from trainer.training.activation_checkpointing import checkpointed_layers

SHARED = tuple(range(20, 40))
ROWS: list[Row] = [((*SHARED, 41, 42), (50, 51, 52)), ((*SHARED, 43), (60, 61, 62, 63))]
OTHERS = [(70, 71), (80, 81, 82)]


@dataclass(frozen=True)
class Look:
    """Results of one process for a model: the number of its weights, of those stored by the process
    and of those of the head; and the largest differences of log-probabilities and gradients from
    the whole model."""

    whole: int
    kept: int
    head: int
    apart: float
    slopes_apart: float
    same_answer: bool


def kept(model: Any) -> int:
    """Return the number of weights that this process stores."""
    local = [getattr(parameter, "_local_tensor", parameter) for parameter in model.parameters()]
    return sum(tensor.untyped_storage().nbytes() // tensor.itemsize for tensor in local)


def computed(base: LoadedBase) -> tuple[Tensor, list[Tensor], list[int]]:
    """Return log-probabilities, the adapter's gradients and an answer, using all operations of
    training: generation, two packs held, mismatched pairs, activation checkpointing."""
    lora = Lora.attach(base.model, rank=2, alpha=4)
    generator = torch.Generator().manual_seed(3)
    for parameter in lora.parameters().values():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    (answer,) = generate(base.model, base.tokenizer, [SHARED], Sampling(max_tokens=8, seed=1))
    held = [score(base.model, ROWS, keep=True), score(base.model, ROWS[:1], keep=True)]
    others = held[0].others(OTHERS)
    for scored in held:
        scored.logprobs.values.sum().backward()
    packed = as_forest(base.model) if shares_prefixes(base.model) else nullcontext()
    with packed, checkpointed_layers(base.model):
        score(base.model, ROWS).logprobs.values.sum().backward()
    values = torch.cat([held[0].logprobs.values.detach(), others.values])
    slopes = [parameter.grad for parameter in lora.parameters().values()]
    lora.detach()
    return values, [slope for slope in slopes if slope is not None], list(answer.token_ids)


def look(name: str, process_group: ProcessGroup) -> Look:
    plain = load_base(name, dtype="float32", device="cpu")
    values, slopes, answer = computed(plain)
    shared = load_sharded(name, dtype="float32", device="cpu", process_group=process_group)
    assert shared.fingerprint == plain.fingerprint
    found, found_slopes, found_answer = computed(shared)
    pairs = zip(slopes, found_slopes, strict=True)
    return Look(
        whole=kept(plain.model),
        kept=kept(shared.model),
        head=kept(plain.model.get_output_embeddings()),
        apart=(found - values).abs().max().item(),
        slopes_apart=max((a - b).abs().max().item() for a, b in pairs),
        same_answer=answer == found_answer,
    )


def main(out: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    process_group = ProcessGroup.join(sharded=True)
    looks = {Path(name).name: asdict(look(name, process_group)) for name in names}
    (out / f"{process_group.rank}.json").write_text(json.dumps(looks))
    process_group.leave()
    os._exit(0)  # as trainer.__main__ does, for the same reason


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
