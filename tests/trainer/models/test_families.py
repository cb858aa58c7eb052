"""Every architecture end to end: train, save, serve, and reload with PEFT.

The models are tiny and random. Two results are compared with the plainest computation, one row at
a time through transformers and PEFT: each example's reward after training, and the engine's
answers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PretrainedConfig

from tests.tiny import make_random_model
from tests.trainer.evaluation.test_evaluate import change, make_eval, report_of
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, verify_adapter
from trainer.artifacts.merge import merge
from trainer.backends import backend_for, serving_decoder
from trainer.backends.base import Decoder
from trainer.data.chat import eos_ids
from trainer.data.examples import Example, write_examples
from trainer.data.messages import Message
from trainer.engine.adapters import read_adapter
from trainer.engine.batch import Batch, Row
from trainer.engine.sampling import Sampling
from trainer.evaluation.evaluate import evaluate
from trainer.models.loading import LoadedBase, load_base
from trainer.training.train import train

# PEFT reads an attribute of transformers that is deprecated
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

NAME = "starter@1"
WINDOW = 24  # rows below have up to 41 tokens
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
#: Widths that do not fill a tile of the engine's own decoder.
ODD = {
    **SIZES,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
}
GEMMA = {**SIZES, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
QKVO = {"q_proj", "k_proj", "v_proj", "o_proj"}
LLAMA = QKVO | {"gate_proj", "up_proj", "down_proj"}


@dataclass(frozen=True)
class Family:
    """An architecture, its settings beyond the shared ones, and the layers of its adapter."""

    config: type[PretrainedConfig]
    sizes: dict[str, Any]
    adapted: set[str]


FAMILIES = {
    "Llama": Family(transformers.LlamaConfig, {**SIZES, "head_dim": 16}, LLAMA),
    "Mistral": Family(
        transformers.MistralConfig, {**SIZES, "head_dim": 80, "sliding_window": WINDOW}, LLAMA
    ),
    "Mixtral": Family(
        transformers.MixtralConfig,
        {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
        QKVO,
    ),
    "Qwen2Moe": Family(
        transformers.Qwen2MoeConfig,
        {
            **SIZES,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
        },
        LLAMA,  # gate, up and down of the shared expert
    ),
    "Qwen2": Family(transformers.Qwen2Config, ODD, LLAMA),
    "Qwen3": Family(transformers.Qwen3Config, {**SIZES, "head_dim": 8}, LLAMA),
    "Gemma2": Family(
        transformers.Gemma2Config,
        {**GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
        LLAMA,
    ),
    "Gemma3": Family(
        transformers.Gemma3TextConfig,
        {**GEMMA, "num_hidden_layers": 3, "sliding_window_pattern": 3},
        LLAMA,
    ),
    "Phi3": Family(
        transformers.Phi3Config, SIZES, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    ),
    "GPT2": Family(
        transformers.GPT2Config,
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.15},
        {"c_attn", "c_proj", "c_fc"},
    ),
}


def ids(seed: int, length: int) -> tuple[int, ...]:
    """Return random tokens that are not special."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(10, 250, (length,), generator=generator).tolist())


def examples(eos: int) -> list[Example]:
    """Return six answers to three prompts that share ten tokens; most rows exceed the window."""
    found = []
    for number in range(6):
        prompt, finished = number // 2, number % 3 != 2
        said = ids(100 + number, 6 + 3 * number)
        found.append(
            Example(
                id=f"e{number}",
                prompt=(Message("user", f"Question {prompt}?"),),
                completion=f"Answer {number}",
                label=number % 2 == 0,
                prompt_token_ids=(*ids(0, 10), *ids(1 + prompt, 4 + 2 * prompt)),
                completion_token_ids=(*said, eos) if finished else said,
                finish_reason="stop" if finished else "length",
            )
        )
    return found


@dataclass(frozen=True)
class Trained:
    """A base model, a run of one step, and a run that continued for another step."""

    family: Family
    base_dir: Path
    one_step: Path
    two_steps: Path
    examples: list[Example]

    def base(self) -> LoadedBase:
        return load_base(str(self.base_dir), dtype="float32", device="cpu")

    def peft(self, base: LoadedBase) -> Any:
        return PeftModel.from_pretrained(base.model, self.one_step / "adapter").eval()


#: Two that differ most are in each run of the suite; the others are in `make test-long`.
OFTEN = ("Llama", "Gemma3")


@pytest.fixture(
    scope="module",
    params=[
        name if name in OFTEN else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES
    ],
)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    family = FAMILIES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    tokenizer = make_random_model(root / "base", family.config, family.sizes)
    given = examples(tokenizer.eos_token_id)
    for epochs, name in ((1, "one"), (2, "two")):
        settings = {
            "base_model": str(root / "base"),
            "adapter_name": NAME,
            "batch_size": len(given),
            "epochs": epochs,
            "lora_r": 4,
            "lora_alpha": 12,
            "learning_rate": 0.05,
            "lr_schedule": "constant",
            "warmup_ratio": 0,
            "kl_brake": None,
            "token_budget": 90,
            "dtype": "float32",
            "device": "cpu",
            "threads": 1,
        }
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(settings))
        write_examples(root / name / "examples.jsonl", given)
        train(root / name)
    return Trained(family, root / "base", root / "one", root / "two", given)


def plain_logprob(model: Any, example: Example) -> float:
    """Return the log-probability of one completion after its prompt, from the whole row."""
    prompt, completion = example.prompt_token_ids, example.completion_token_ids
    assert prompt is not None
    assert completion is not None
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
    scores = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return float(scores[range(len(completion)), list(completion)].sum())


def test_adapter_is_on_the_expected_layers_and_was_trained(trained: Trained) -> None:
    directory = trained.one_step / "adapter"
    verify_adapter(directory, base_fingerprint=trained.base().fingerprint, max_rank=4)
    config = json.loads((directory / CONFIG).read_bytes())
    assert set(config["target_modules"]) == trained.family.adapted
    assert config["fan_in_fan_out"] is (trained.family.config is transformers.GPT2Config)
    layers = trained.base().model.config.num_hidden_layers
    moved = {key for key, tensor in load_file(directory / WEIGHTS).items() if tensor.any()}
    for leaf in trained.family.adapted:
        twice = 2 if leaf == "c_proj" else 1  # GPT-2 has one in attention and one in the MLP
        assert sum(key.endswith(f".{leaf}.lora_B.weight") for key in moved) == layers * twice


def test_rewards_equal_those_of_single_rows_with_peft(trained: Trained) -> None:
    base = trained.base()
    before = [plain_logprob(base.model, example) for example in trained.examples]
    model = trained.peft(base)
    after = [plain_logprob(model, example) for example in trained.examples]
    expected = [new - old for new, old in zip(after, before, strict=True)]
    lines = (trained.two_steps / "fit.jsonl").read_text().splitlines()
    fit = {found["id"]: found["reward"] for found in map(json.loads, lines)}
    # the second step scores the policy after the first one
    assert [fit[example.id] for example in trained.examples] == pytest.approx(expected, abs=2e-3)
    assert max(map(abs, expected)) > 0.05


def test_peft_loads_the_adapter_and_computes_the_same(trained: Trained) -> None:
    row = torch.tensor([ids(7, 2 * WINDOW)])
    base = trained.base()
    with torch.no_grad():
        bare = base.model(row).logits
        with adapted(base, trained.one_step / "adapter"):
            ours = base.model(row).logits
        torch.testing.assert_close(base.model(row).logits, bare, rtol=0, atol=0)
        theirs = trained.peft(trained.base())(row).logits
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, bare, atol=1e-3)


def test_merged_model_computes_the_same_without_an_adapter(
    trained: Trained, tmp_path: Path
) -> None:
    row = torch.tensor([ids(8, 2 * WINDOW)])
    made = merge(str(trained.base_dir), trained.one_step / "adapter", tmp_path / "merged")
    base = trained.base()
    with torch.no_grad(), adapted(base, trained.one_step / "adapter"):
        expected = base.model(row).logits
    merged = load_base(str(made), dtype="float32", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(merged.model(row).logits, expected, atol=2e-4, rtol=1e-3)
    assert merged.fingerprint != base.fingerprint


def test_gate_measures_the_adapter_beside_its_base(trained: Trained, tmp_path: Path) -> None:
    if trained.family.config is transformers.GPT2Config:
        pytest.skip("the neutral passages are longer than its 512 positions")
    adapter = str(trained.one_step / "adapter")
    eval_dir = make_eval(tmp_path, trained.base_dir, {NAME: adapter, "base": None})
    change(eval_dir, answers_per_prompt=1, languages=["en"], max_tokens=4, kl_prompts=1)
    evaluate(eval_dir)
    found = report_of(eval_dir)["candidates"]
    assert list(found) == [NAME, "base"]
    assert found[NAME] != found["base"]
    assert found[NAME].keys() == found["base"].keys()


def test_engine_answers_equal_transformers_and_peft(trained: Trained) -> None:
    base = trained.base()
    stack = serving_decoder(base.model)
    _, weights = read_adapter(trained.one_step / "adapter", base, stack.shapes, name=NAME)
    slot = stack.attach(weights)
    # other architectures use transformers, even if they look like this one
    compiled = backend_for("cpu").may_serve(base.model.config.model_type)
    assert stack.batch_invariant == compiled
    plain = trained.base()
    prompts = [ids(200 + number, 3 + 12 * number) for number in range(4)]
    tokens = 2 * WINDOW
    bare = [greedy(plain.model, prompt, tokens) for prompt in prompts]
    model = trained.peft(plain)
    expected = [greedy(model, prompt, tokens) for prompt in prompts]
    assert bare != expected
    for slots in ([0] * 4, [slot] * 4, [slot, 0, 0, slot]):
        wanted = [(expected if used else bare)[number] for number, used in enumerate(slots)]
        assert served(base, stack, prompts, slots, tokens) == wanted


def served(
    base: LoadedBase,
    stack: Decoder,
    prompts: Sequence[Sequence[int]],
    slots: Sequence[int],
    tokens: int,
) -> list[list[int]]:
    """Return greedy answers of rows that share a batch, two of which join late."""
    eos = eos_ids(base.model, base.tokenizer)
    sampling = Sampling(max_tokens=tokens, temperature=0)
    rows = [
        Row.new(prompt, sampling, tokenizer=base.tokenizer, eos=eos, slot=slot)
        for prompt, slot in zip(prompts, slots, strict=True)
    ]
    batch = Batch(base.model, stack)
    batch.join(rows[:2])
    batch.step()
    batch.join(rows[2:])
    while batch.rows:
        batch.step()
    return [row.token_ids for row in rows]


def greedy(model: Any, prompt: Sequence[int], tokens: int) -> list[int]:
    """Return one answer, computed token by token without a cache."""
    said = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            said.append(int(model(torch.tensor([said]), use_cache=False).logits[0, -1].argmax()))
            if said[-1] == model.config.eos_token_id:
                break
    return said[len(prompt) :]
