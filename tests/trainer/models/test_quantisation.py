"""A base in four bits, by the real bitsandbytes on the CPU: trainer, gate and engine see the same
one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.tiny import make_random_model
from tests.trainer.conftest import example
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import verify_adapter
from trainer.backends import serving_decoder
from trainer.backends.base import Decoder
from trainer.data.chat import eos_ids
from trainer.data.examples import write_examples
from trainer.data.tokenise import Tokenised, tokenise_for
from trainer.engine.adapters import read_adapter
from trainer.engine.batch import Batch, Row
from trainer.engine.loading import load_served
from trainer.engine.sampling import Sampling
from trainer.errors import Refused
from trainer.evaluation.config import EvalConfig
from trainer.evaluation.evaluate import evaluate
from trainer.models.architecture import Architecture
from trainer.models.layers import linear_layers
from trainer.models.loading import LoadedBase, load_base, prepare
from trainer.models.quantisation import quantisation_faults
from trainer.planning.memory import Load, Setup, estimate
from trainer.training.train import train

MODELS = Path(__file__).resolve().parents[3] / "var" / "models"
FOUR_BITS: dict[str, Any] = {"quantisation": "4bit", "dtype": "float32", "device": "cpu"}
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
CONFIGS: dict[str, tuple[type[transformers.PretrainedConfig], dict[str, Any]]] = {
    "Llama": (transformers.LlamaConfig, SIZES),
    "Mixtral": (
        transformers.MixtralConfig,
        {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model, and a mixture whose experts are packed as well."""
    directory = tmp_path_factory.mktemp(request.param)
    make_random_model(directory, *CONFIGS[request.param])
    return directory


def packed_weights(base: LoadedBase) -> dict[str, torch.Tensor]:
    """Return everything that is held packed, by name."""
    return {
        name: tensor
        for name, tensor in base.model.named_parameters()
        if tensor.dtype == torch.uint8
    }


def test_layers_and_experts_are_packed_and_computed_in_the_wanted_type(model_dir: Path) -> None:
    base = load_base(str(model_dir), **FOUR_BITS)
    packed = packed_weights(base)
    experts = 2 * 2 if base.model.config.model_type == "mixtral" else 0
    assert len(packed) == len(linear_layers(base.model)) + experts
    plain = load_base(str(model_dir), dtype="float32", device="cpu")
    row = torch.arange(20, 60)[None]
    with torch.no_grad():
        exact, found = plain.model(row).logits, base.model(row).logits
    assert found.dtype == torch.float32
    assert 0.01 < float((found - exact).abs().mean()) < 2.0
    assert base.fingerprint == plain.fingerprint


def test_packed_bytes_do_not_depend_on_the_type_that_is_computed_in(model_dir: Path) -> None:
    """A trainer in float32 and an engine in bfloat16 hold the same base."""
    wide = packed_weights(load_base(str(model_dir), **FOUR_BITS))
    half = packed_weights(load_base(str(model_dir), **{**FOUR_BITS, "dtype": "bfloat16"}))
    assert wide.keys() == half.keys()
    for name, tensor in wide.items():
        assert torch.equal(tensor, half[name]), name


def test_passes_without_gradients_leave_the_packed_weights_as_they_are(model_dir: Path) -> None:
    """On CPUs with bfloat16 units bitsandbytes reorders the weights of layers that it takes for
    served ones, and their gradient is lost."""
    base = load_base(str(model_dir), **FOUR_BITS)
    layers: list[Any] = list(linear_layers(base.model).values())
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_estimate_counts_the_bytes_that_a_packed_base_holds(model_dir: Path) -> None:
    base = load_base(str(model_dir), **FOUR_BITS)
    held = sum(tensor.nbytes for tensor in base.model.parameters())
    for module in base.model.modules():
        owner = getattr(module, "weight", module)
        state = getattr(owner, "quant_state", None)
        if state is not None:
            held += state.absmax.nbytes + state.state2.absmax.nbytes
    setup = Setup(4, torch.float32, "cpu", quantisation="4bit")
    memory = estimate(Architecture.of(base.model.config), Load(0, 0), setup)
    # tiny layers: the last block of scales is seldom full
    assert memory.base == pytest.approx(held, rel=0.02)


def trained_in_four_bits(root: Path, model: Path, *, examples: int = 6, **config: Any) -> Path:
    """Train two steps in four bits; return the run directory."""
    run_dir = root / "run"
    run_dir.mkdir()
    settings = {
        "base_model": str(model),
        "adapter_name": "starter@1",
        "batch_size": 6,
        "epochs": 2,
        "lora_r": 4,
        "learning_rate": 0.02,
        "lr_schedule": "constant",
        "warmup_ratio": 0,
        "kl_brake": None,
        "patience": None,
        "threads": 1,
        **FOUR_BITS,
        **config,
    }
    (run_dir / "config.json").write_text(json.dumps(settings))
    write_examples(run_dir / "examples.jsonl", [example(number) for number in range(examples)])
    train(run_dir)
    return run_dir


def evaluated(root: Path, model: Path, adapter: Path, *, examples: int = 6) -> dict[str, float]:
    """Evaluate adapter and base in four bits; return the adapter's reward by example."""
    directory = root / "evaluation"
    directory.mkdir()
    config = {
        "base_model": str(model),
        "candidates": [
            {"name": "starter@1", "path": str(adapter)},
            {"name": "base", "path": None},
        ],
        "max_tokens": 4,
        "answers_per_prompt": 1,
        "kl_prompts": 1,
        "languages": ["en"],
        **FOUR_BITS,
    }
    (directory / "evaluate.json").write_text(json.dumps(config))
    write_examples(directory / "test.jsonl", [example(number) for number in range(examples)])
    prompt = {"id": "p", "messages": [{"role": "user", "content": "Question?"}]}
    (directory / "prompts.jsonl").write_text(json.dumps(prompt) + "\n")
    evaluate(directory)
    report = json.loads((directory / "report.json").read_text())
    return {found["id"]: found["rewards"]["starter@1"] for found in report["test"]}


def served_logprob(decoder: Decoder, slot: int, found: Tokenised) -> float:
    """Return log p of a completion by the engine's decoder, one token at a time."""
    row = [*found.prompt, *found.completion]
    total = 0.0
    for position in range(len(found.prompt), len(row)):
        cache = decoder.cache(1, position)
        scores = decoder.read([row[:position]], 0, [slot], cache)
        total += float(scores[0].float().log_softmax(-1)[row[position]])
    return total


def served_rewards(model: Path, adapter: Path, *, examples: int = 6) -> dict[str, float]:
    """Return the rewards of the examples by the engine's weights and code."""
    base = load_served(str(model), **FOUR_BITS)
    given = [example(number) for number in range(examples)]
    rows = tokenise_for(base, given, max_length=512).examples
    decoder = serving_decoder(base.model)
    _, weights = read_adapter(adapter, base, decoder.shapes)
    slot = decoder.attach(weights)
    with torch.no_grad():
        return {
            row.id: served_logprob(decoder, slot, row) - served_logprob(decoder, 0, row)
            for row in rows
        }


@pytest.mark.slow
def test_trainer_gate_and_engine_agree_in_four_bits(model_dir: Path, tmp_path: Path) -> None:
    # the second step scores the policy after the first: a run of one step has that adapter
    two = trained_in_four_bits(tmp_path, model_dir)
    (tmp_path / "first").mkdir()
    one = trained_in_four_bits(tmp_path / "first", model_dir, epochs=1)
    manifest = verify_adapter(one / "adapter", base_fingerprint=None, max_rank=4)
    assert manifest.train["config"]["quantisation"] == "4bit"
    lines = (two / "fit.jsonl").read_text().splitlines()
    trainer = {found["id"]: found["reward"] for found in map(json.loads, lines)}
    gate = evaluated(tmp_path, model_dir, one / "adapter")
    engine = served_rewards(model_dir, one / "adapter")
    assert max(map(abs, gate.values())) > 0.05
    assert trainer == pytest.approx(gate, abs=2e-3)
    assert engine == pytest.approx(gate, abs=2e-3)
    # the adapter on the unpacked base is another policy
    plain = load_base(str(model_dir), dtype="float32", device="cpu")
    rows = tokenise_for(plain, [example(n) for n in range(6)], max_length=512).examples
    with adapted(plain, one / "adapter"):
        other = {row.id: plain_logprob(plain.model, row) for row in rows}
    unpacked = {row.id: other[row.id] - plain_logprob(plain.model, row) for row in rows}
    assert unpacked != pytest.approx(gate, abs=2e-3)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(900)
def test_smollm_is_trained_judged_and_served_in_four_bits(tmp_path: Path) -> None:
    model = prepare(MODELS, say=lambda line: None)
    run_dir = trained_in_four_bits(tmp_path, model, examples=4, epochs=1, learning_rate=5e-4)
    gate = evaluated(tmp_path, model, run_dir / "adapter", examples=2)
    engine = served_rewards(model, run_dir / "adapter", examples=2)
    assert max(map(abs, gate.values())) > 0.05
    assert engine == pytest.approx(gate, abs=5e-3)


def plain_logprob(model: Any, found: Tokenised) -> float:
    """Return log p of a completion by one pass through transformers."""
    row = torch.tensor([[*found.prompt, *found.completion]])
    with torch.no_grad():
        scores = model(row, use_cache=False).logits[0].float().log_softmax(-1)
    places = range(len(found.prompt) - 1, row.shape[1] - 1)
    return float(sum(scores[place, row[0, place + 1]] for place in places))


def test_batch_of_the_engine_answers_as_transformers_does(model_dir: Path) -> None:
    base = load_served(str(model_dir), **FOUR_BITS)
    prompts = [[30, 40, 50], list(range(20, 60))]
    plain = load_base(str(model_dir), **FOUR_BITS)
    expected = [greedy(plain.model, prompt, 12) for prompt in prompts]
    batch = Batch(base.model, serving_decoder(base.model))
    sampling = Sampling(max_tokens=12, temperature=0)
    eos = eos_ids(base.model, base.tokenizer)
    rows = [Row.new(p, sampling, tokenizer=base.tokenizer, eos=eos, slot=0) for p in prompts]
    batch.join(rows)
    while batch.rows:
        batch.step()
    assert [row.token_ids for row in rows] == expected


def greedy(model: Any, prompt: Sequence[int], tokens: int) -> list[int]:
    """Return greedy tokens up to the end of sequence, the whole row at each step."""
    row = list(prompt)
    end = model.generation_config.eos_token_id
    with torch.no_grad():
        for _ in range(tokens):
            row.append(int(model(torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
            if row[-1] == end:
                break
    return row[len(prompt) :]


def test_evaluation_is_refused_with_an_unknown_quantisation(tmp_path: Path) -> None:
    path = tmp_path / "evaluate.json"
    config = {
        "base_model": "model",
        "candidates": [{"name": "base", "path": None}],
        "quantisation": "3bit",
    }
    path.write_text(json.dumps(config))
    with pytest.raises(Refused, match="quantisation must be 4bit or null, not '3bit'"):
        EvalConfig.read(path)


def test_four_bit_weights_are_refused_where_unsupported(tmp_path: Path) -> None:
    assert quantisation_faults("4bit", torch.device("cpu"), installed=True) == []
    (kind,) = quantisation_faults("4bit", torch.device("mps"), installed=True)
    assert "need a CPU or a CUDA device, not mps" in kind
    (missing,) = quantisation_faults("4bit", torch.device("cpu"), installed=False)
    assert "pip install 'prospect[quantised]'" in missing
    with pytest.raises(Refused, match="must be '4bit' or left out, not '3bit'"):
        load_base(str(tmp_path / "no model here"), device="cpu", quantisation="3bit")
