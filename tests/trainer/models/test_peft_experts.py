"""Adapters of routed experts: trained, read by PEFT, refused where they are served, merged."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PretrainedConfig

from tests.tiny import make_random_model, tiny_tokenizer
from tests.trainer.models.test_families import SIZES, examples, ids, plain_logprob
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import CONFIG, MANIFEST, WEIGHTS, file_sha256
from trainer.artifacts.merge import merge
from trainer.backends import serving_decoder
from trainer.config import TrainConfig
from trainer.data.examples import write_examples
from trainer.engine.adapters import read_adapter
from trainer.errors import BadArtifact, Refused
from trainer.models.architecture import Architecture
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import PREFIX
from trainer.models.peft_experts import expert_parameters
from trainer.models.peft_lora import PeftLora
from trainer.planning.memory import Load, Setup, estimate
from trainer.planning.plan import as_text, plan
from trainer.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
NAME = "starter@1"
MIXTRAL = transformers.MixtralConfig, {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_3 = (
    transformers.Qwen3MoeConfig,
    {
        **SIZES,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
)
#: Its experts have biases and are stored as (experts, in, out).
GPT_OSS = (
    transformers.GptOssConfig,
    {
        **SIZES,
        "head_dim": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 24,
        "rope_scaling": None,
    },
)
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "Mixtral": MIXTRAL,
    "Qwen3Moe": QWEN_3,
    "GptOss": GPT_OSS,
}
ROW = torch.tensor([ids(7, 40)])


def tiny_mixture(name: str, directory: Path) -> Path:
    """Save a tiny random mixture of experts and its tokenizer."""
    make_random_model(directory, *FAMILIES[name])
    return directory


@dataclass(frozen=True)
class Trained:
    base_dir: Path
    one_step: Path
    two_steps: Path

    @property
    def adapter(self) -> Path:
        return self.one_step / "adapter"

    def base(self) -> LoadedBase:
        return load_base(str(self.base_dir), dtype="float32", device="cpu")


def run_directory(base_dir: Path, directory: Path, **changed: Any) -> Path:
    settings = {
        "base_model": str(base_dir),
        "adapter_name": NAME,
        "experts": True,
        "batch_size": 6,
        "epochs": 1,
        "lora_r": 4,
        "lora_alpha": 12,
        "learning_rate": 0.05,
        "lr_schedule": "constant",
        "warmup_ratio": 0,
        "kl_brake": None,
        "patience": None,
        "token_budget": 90,
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
        **changed,
    }
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(settings))
    write_examples(directory / "examples.jsonl", examples(tiny_tokenizer().eos_token_id))
    return directory


@pytest.fixture(scope="module", params=list(FAMILIES))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp(request.param)
    base_dir = tiny_mixture(request.param, root / "base")
    runs = [run_directory(base_dir, root / str(epochs), epochs=epochs) for epochs in (1, 2)]
    for run_dir in runs:
        train(run_dir)
    return Trained(base_dir, *runs)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(ROW, use_cache=False).logits
    return found


def test_experts_and_attention_were_trained(trained: Trained) -> None:
    config = json.loads((trained.adapter / CONFIG).read_bytes())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert config["target_parameters"] == ["experts.down_proj", "experts.gate_up_proj"]
    tensors = load_file(trained.adapter / WEIGHTS)
    moved = [name for name, tensor in tensors.items() if ".lora_B." in name and tensor.any()]
    assert sum("experts" in name for name in moved) == 2 * 2, "two parameters in two layers"
    assert sum("self_attn" in name for name in moved) == 2 * 4


def test_rewards_are_those_of_peft(trained: Trained) -> None:
    """The second step scores the policy after the first one."""
    given = examples(tiny_tokenizer().eos_token_id)
    base = trained.base()
    before = [plain_logprob(base.model, example) for example in given]
    model = PeftModel.from_pretrained(base.model, trained.adapter).eval()
    after = [plain_logprob(model, example) for example in given]
    expected = [new - old for new, old in zip(after, before, strict=True)]
    lines = (trained.two_steps / "fit.jsonl").read_text().splitlines()
    fit = {found["id"]: found["reward"] for found in map(json.loads, lines)}
    assert [fit[example.id] for example in given] == pytest.approx(expected, abs=2e-3)
    assert max(map(abs, expected)) > 0.05


def test_merged_model_computes_what_peft_computes(trained: Trained, tmp_path: Path) -> None:
    bare = logits(trained.base().model)
    expected = logits(PeftModel.from_pretrained(trained.base().model, trained.adapter).eval())
    made = merge(str(trained.base_dir), trained.adapter, tmp_path / "merged")
    merged = load_base(str(made), dtype="float32", device="cpu")
    torch.testing.assert_close(logits(merged.model), expected, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(bare, expected, atol=1e-2)
    # the engine serves it like any other base
    serving_decoder(merged.model)


def test_unmerged_adapter_is_not_served(trained: Trained) -> None:
    base = trained.base()
    stack = serving_decoder(base.model)
    with pytest.raises(BadArtifact, match="routed experts\\) are not served: merge the adapter"):
        read_adapter(trained.adapter, base, stack.shapes, name=NAME)
    with (
        pytest.raises(BadArtifact, match="python -m trainer merge"),
        adapted(trained.base(), trained.adapter),
    ):
        pass


def test_base_is_the_same_after_detaching(trained: Trained) -> None:
    base = trained.base()
    before = logits(base.model)
    lora = PeftLora.attach(base.model, rank=2, alpha=4, experts=True)
    for layer in lora.layers.values():
        layer.lora_b.data.fill_(0.3)
    assert not torch.allclose(logits(base.model), before, atol=1e-2)
    with lora.off():
        torch.testing.assert_close(logits(base.model), before)
    lora.detach()
    assert torch.equal(logits(base.model), before)
    assert len(expert_parameters(base.model)) == 4


def test_matrices_that_fit_no_expert_are_refused(trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "adapter"
    other.mkdir()
    for file in trained.adapter.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tensors = load_file(other / WEIGHTS)
    key = next(name for name in tensors if "experts.lora_A" in name)
    tensors[key] = torch.cat([tensors[key], tensors[key][:4]])  # of one expert too many
    save_file(tensors, other / WEIGHTS)
    manifest = json.loads((other / MANIFEST).read_bytes())
    manifest["files"][WEIGHTS] = file_sha256(other / WEIGHTS)
    (other / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BadArtifact, match=f"{key.removeprefix(PREFIX)} has shape"):
        merge(str(trained.base_dir), other, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_mlp_of_a_mixture_is_its_experts(tmp_path: Path) -> None:
    base_dir = tiny_mixture("Mixtral", tmp_path / "base")
    run_dir = run_directory(base_dir, tmp_path / "run", target_modules="mlp")
    train(run_dir)
    base = load_base(str(base_dir), dtype="float32", device="cpu")
    bare = logits(base.model)
    model = PeftModel.from_pretrained(base.model, run_dir / "adapter").eval()
    assert not torch.allclose(logits(model), bare, atol=1e-2)
    assert all("experts" in name for name in load_file(run_dir / "adapter" / WEIGHTS))


def test_model_without_experts_is_refused(tiny: LoadedBase) -> None:
    with pytest.raises(Refused, match="has no routed experts: leave experts out"):
        PeftLora.attach(tiny.model, rank=2, alpha=4, experts=True)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"experts": "yes"}, "experts must be true or false"),
        ({"use_dora": True}, "experts excludes use_dora"),
        ({"lora_init": "pissa"}, "experts excludes lora_init pissa"),
        ({"lora_dropout": 0.1}, "experts excludes lora_dropout"),
        ({"quantisation": "4bit"}, "experts excludes quantisation"),
        ({"start_adapter": "../a"}, "experts excludes start_adapter"),
        ({"gradient_checkpointing": False}, "experts excludes gradient_checkpointing false"),
        ({"fsdp": True}, "fsdp spreads no weights"),
    ],
)
def test_settings_that_exclude_experts(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(Refused, match=fault):
        TrainConfig(**{"base_model": "m", "adapter_name": NAME, "experts": True, **settings})


def test_plan_counts_the_experts(tmp_path: Path) -> None:
    base_dir = tiny_mixture("Mixtral", tmp_path / "base")
    without = plan(run_directory(base_dir, tmp_path / "a", experts=False))
    found = plan(run_directory(base_dir, tmp_path / "b"))
    said = as_text(found)
    assert "all layers and the routed experts, in PEFT's layers; no engine serves it" in said
    assert "layers checkpointed" in said or found["packs"]["gradient_checkpointing"]
    assert "4-bit" not in said
    assert "FSDP" not in said
    # the numbers that a run would train
    base = load_base(str(base_dir), dtype="float32", device="cpu")
    lora = PeftLora.attach(base.model, rank=4, alpha=12, experts=True)
    trained = sum(parameter.numel() for parameter in lora.parameters().values())
    assert found["memory"]["adapter"] == trained * (2 * 4 + 16)
    assert without["memory"]["adapter"] < found["memory"]["adapter"] / 2


def test_estimate_of_mixtral_has_a_layers_experts_twice() -> None:
    architecture = Architecture.of(transformers.MixtralConfig())
    load = Load(2048, 0)
    usual = estimate(architecture, load, Setup(16, checkpointing=True))
    experts = estimate(architecture, load, Setup(16, checkpointing=True, experts=True))
    one_layer = 2 * 8 * 3 * 4096 * 14336  # bytes in bfloat16
    assert experts.workspace - usual.workspace == 2 * one_layer
    assert experts.activations == usual.activations
