"""Greedy answers of the engine's batch compared with the model, computed token by token without a
cache, for rows of the base and of an adapter."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.conftest import MakeBase
from tests.gpu.device import DEVICE, base_on_device, on_device
from tests.tiny import make_tiny_adapter
from trainer.artifacts.adapted import adapted
from trainer.backends import serving_decoder
from trainer.engine.adapters import read_adapter
from trainer.engine.batch import Batch, Row
from trainer.engine.sampling import Sampling
from trainer.models.loading import load_base

pytestmark = on_device

TOKENS = 32
GREEDY = Sampling(max_tokens=TOKENS, temperature=0, ignore_eos=True)
PROMPTS = [tuple(range(10 + 40 * n, 13 + 52 * n)) for n in range(4)]


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_engine_answers_what_the_model_does(
    make_base: MakeBase, tmp_path: Path, family: str
) -> None:
    directory = make_base(family)
    make_tiny_adapter(
        tmp_path / "adapter", load_base(str(directory), dtype="float32", device="cpu")
    )
    plain = base_on_device(directory, "float32")
    bare = [greedy(plain.model, prompt) for prompt in PROMPTS]
    with adapted(plain, tmp_path / "adapter"):
        changed = [greedy(plain.model, prompt) for prompt in PROMPTS]
    assert bare != changed

    base = base_on_device(directory, "float32")
    decoder = serving_decoder(base.model)
    _, weights = read_adapter(tmp_path / "adapter", base, decoder.shapes)
    slot = decoder.attach(weights)
    rows = [
        Row.new(prompt, GREEDY, tokenizer=base.tokenizer, eos=frozenset(), slot=number % 2 * slot)
        for number, prompt in enumerate(PROMPTS)
    ]
    batch = Batch(base.model, decoder)
    batch.join(rows[:2])
    batch.step()
    batch.join(rows[2:])
    while batch.rows:
        batch.step()
    expected = [(changed if number % 2 else bare)[number] for number in range(len(PROMPTS))]
    assert [row.token_ids for row in rows] == expected


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int]) -> list[int]:
    """Return one answer, from the whole row for each token."""
    said = list(prompt)
    for _ in range(TOKENS):
        row = torch.tensor([said], device=DEVICE)
        said.append(int(model(row, use_cache=False).logits[0, -1].argmax()))
    return said[len(prompt) :]
