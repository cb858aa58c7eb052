"""Adapters in PEFT's layers: the same as ours without a variant, and every variant trained, saved,
read by PEFT, and served or merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from tests.tiny import tiny_tokenizer
from tests.trainer.conftest import MakeRun, example
from tests.trainer.models.test_families import FAMILIES
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, verify_adapter, write_adapter
from trainer.artifacts.merge import merge
from trainer.backends import VARIABLE, serving_decoder
from trainer.config import TrainConfig
from trainer.data.tokenise import Tokenised, tokenise_for
from trainer.engine.adapters import read_adapter
from trainer.errors import BadArtifact, Refused
from trainer.models.layers import layers_of
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import Lora, adapter_config
from trainer.models.peft_lora import PeftLinear, PeftLora, balanced
from trainer.training.start_adapter import new_adapter
from trainer.training.train import train

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
IDS = torch.arange(20, 52)[None]


def family_model(name: str) -> Any:
    """Return a tiny random model of an architecture."""
    family = FAMILIES[name]
    config = family.config(**family.sizes, vocab_size=len(tiny_tokenizer()), pad_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(20)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def randomised(lora: Lora) -> Lora:
    """Give B matrices values: an untrained adapter changes nothing."""
    generator = torch.Generator().manual_seed(5)
    for layer in lora.layers.values():
        layer.lora_b.data.copy_(torch.randn(layer.lora_b.shape, generator=generator) * 0.1)
    return lora


def gradients(model: Any, lora: Lora) -> dict[str, torch.Tensor]:
    """Return the gradients of a likelihood by the adapter."""
    scores = model(IDS).logits[0, :-1].log_softmax(-1)
    loss = -scores[range(IDS.shape[1] - 1), IDS[0, 1:]].mean()
    parameters = lora.parameters()
    found = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_peft_layers_compute_what_ours_compute(name: str) -> None:
    ours, theirs = family_model(name), family_model(name)
    bare = ours(IDS).logits.detach()
    given: dict[str, Any] = {"rank": 4, "alpha": 12, "seed": 7}
    own, peft = Lora.attach(ours, **given), PeftLora.attach(theirs, **given)
    assert own.parameters().keys() == peft.parameters().keys()
    for key, parameter in own.parameters().items():
        assert torch.equal(parameter, peft.parameters()[key]), key
    randomised(own)
    randomised(peft)
    expected, found = gradients(ours, own), gradients(theirs, peft)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, atol=2e-5, rtol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, atol=2e-5, rtol=1e-4)
        with peft.off():
            torch.testing.assert_close(theirs(IDS).logits, bare)
    peft.detach()
    assert torch.equal(theirs(IDS).logits, bare)


def test_backends_without_layers_of_their_own_train_those_of_peft(
    tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig("model", "starter@1", lora_r=4)
    own = new_adapter(tiny, config)
    own.detach()
    monkeypatch.setenv(VARIABLE, "torch_reference")
    assert isinstance(new_adapter(tiny, config), PeftLora)


def test_dropout_is_on_in_training_alone(tiny: LoadedBase) -> None:
    lora = randomised(PeftLora.attach(tiny.model, rank=4, alpha=8, dropout=0.5))
    with torch.no_grad():
        still = tiny.model(IDS).logits
        assert torch.equal(tiny.model(IDS).logits, still)
        lora.train()
        assert not torch.allclose(tiny.model(IDS).logits, still)
        lora.train(False)
        assert torch.equal(tiny.model(IDS).logits, still)


VARIANTS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "pissa": {"lora_init": "pissa"},
    "pissa with rslora": {"lora_init": "pissa", "use_rslora": True},
    "attention": {"target_modules": "attention"},
    "mlp": {"target_modules": "mlp", "use_rslora": True},
}
SETTINGS = {
    "batch_size": 6,
    "lora_alpha": 12,
    "learning_rate": 0.02,
    "lr_schedule": "constant",
    "warmup_ratio": 0,
    "patience": None,
}


def logprob(model: Any, row: Tokenised) -> float:
    """Return log p of a completion by one pass of the whole row."""
    ids = torch.tensor([[*row.prompt, *row.completion]])
    with torch.no_grad():
        scores = model(ids, use_cache=False).logits[0].log_softmax(-1)
    places = range(len(row.prompt) - 1, ids.shape[1] - 1)
    return float(sum(scores[place, ids[0, place + 1]] for place in places))


def rewards(base: LoadedBase, model: Any, reference: Any) -> dict[str, float]:
    rows = tokenise_for(base, [example(n) for n in range(6)], max_length=512).examples
    return {row.id: logprob(model, row) - logprob(reference, row) for row in rows}


def plain(tiny_dir: Path) -> LoadedBase:
    return load_base(str(tiny_dir), dtype="float32", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(VARIANTS))
@pytest.mark.parametrize("backend", ["", "torch_reference"])
def test_variant_is_trained_and_peft_computes_the_trainers_rewards(
    name: str,
    backend: str,
    make_run: MakeRun,
    tiny_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, backend)
    given = {**SETTINGS, **VARIANTS[name], "examples": [example(n) for n in range(6)]}
    one, two = make_run("one", epochs=1, **given), make_run("two", epochs=2, **given)
    train(one)
    train(two)
    # the second step scores the policy after the first one
    lines = (two / "fit.jsonl").read_text().splitlines()
    trainer = {found["id"]: found["reward"] for found in map(json.loads, lines)}
    base = plain(tiny_dir)
    peft = PeftModel.from_pretrained(plain(tiny_dir).model, one / "adapter").eval()
    assert rewards(base, peft, base.model) == pytest.approx(trainer, abs=2e-3)
    assert max(map(abs, trainer.values())) > 0.05
    settings = json.loads((one / "adapter" / CONFIG).read_text())
    assert settings["init_lora_weights"] is True
    assert settings["r"] == (8 if "pissa" in name else 4)
    if name in ("attention", "mlp"):
        wanted = {layer.rpartition(".")[2] for layer in layers_of(base.model, name)}
        assert set(settings["target_modules"]) == wanted
    served_or_merged(one / "adapter", tiny_dir, peft, dora=name == "dora")


def served_or_merged(adapter: Path, tiny_dir: Path, peft: Any, *, dora: bool) -> None:
    """Check that gate and engine compute what PEFT does; DoRA is refused there, and merged."""
    expected = peft(IDS).logits.detach()
    base = plain(tiny_dir)
    if dora:
        with pytest.raises(BadArtifact, match="merge the adapter by `python -m trainer merge`"):
            verify_adapter(adapter, base_fingerprint=None, max_rank=8)
        merged = merge(str(tiny_dir), adapter, adapter.parent / "merged", dtype="float32")
        found = load_base(str(merged), dtype="float32", device="cpu").model(IDS).logits
        torch.testing.assert_close(found.detach(), expected, atol=1e-4, rtol=1e-3)
        return
    with torch.no_grad():
        with adapted(base, adapter):
            torch.testing.assert_close(base.model(IDS).logits, expected, atol=1e-4, rtol=1e-3)
        decoder = serving_decoder(base.model)
        _, weights = read_adapter(adapter, base, decoder.shapes)
        slot = decoder.attach(weights)
        cache = decoder.cache(1, IDS.shape[1])
        scores = decoder.read([IDS[0].tolist()], 0, [slot], cache)
    torch.testing.assert_close(scores.float(), expected[:, -1], atol=1e-3, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["", "torch_reference"])
def test_pissa_starts_at_the_base(
    backend: str, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, backend)
    given = {**SETTINGS, "examples": [example(n) for n in range(6)], "epochs": 1}
    run_dir = make_run(lora_init="pissa", **given)
    train(run_dir)
    lines = (run_dir / "fit.jsonl").read_text().splitlines()
    assert [json.loads(line)["reward"] for line in lines] == pytest.approx([0] * 6, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True])
def test_version_of_a_pissa_run_is_continued_by_an_ordinary_run(
    rslora: bool, make_run: MakeRun, tiny: LoadedBase
) -> None:
    given = {**SETTINGS, "use_rslora": rslora, "examples": [example(n) for n in range(6)]}
    first = make_run("first", epochs=1, lora_init="pissa", **given)
    train(first)
    given |= {"lora_r": 8, "lora_alpha": 24}
    second = make_run("second", epochs=1, start_adapter="../first/adapter", **given)
    train(second)
    with adapted(tiny, first / "adapter"), torch.no_grad():
        before = tiny.model(IDS).logits
    with adapted(tiny, second / "adapter"), torch.no_grad():
        assert not torch.allclose(tiny.model(IDS).logits, before, atol=1e-3)


def test_pissa_takes_the_largest_singular_values_out_of_the_base(tiny: LoadedBase) -> None:
    name = layers_of(tiny.model, "mlp")[0]
    weight = tiny.model.get_submodule(name).weight.detach().clone()
    with torch.no_grad():
        before = tiny.model(IDS).logits
        lora = PeftLora.attach(tiny.model, rank=4, alpha=8, init="pissa")
        torch.testing.assert_close(tiny.model(IDS).logits, before, atol=1e-4, rtol=1e-3)
        with lora.off():  # the reference is the adapter as it starts, not what is left of the base
            torch.testing.assert_close(tiny.model(IDS).logits, before, atol=1e-4, rtol=1e-3)
        layer: PeftLinear = lora.layers[name]
        values = torch.linalg.svdvals(weight)
        left = torch.linalg.svdvals(layer.frozen.weight)
        torch.testing.assert_close(left[0], values[4], atol=1e-3, rtol=1e-2)
        randomised(lora)
        assert not torch.allclose(tiny.model(IDS).logits, before, atol=1e-2)


def test_difference_of_adapters_survives_rounding() -> None:
    generator = torch.Generator().manual_seed(3)
    first_a, first_b = (torch.randn(4, 40, generator=generator) for _ in range(2))
    step = torch.randn(4, 40, generator=generator) * 1e-3
    a, b = torch.cat([first_a + step, first_a]), torch.cat([first_b, -first_b]).t()
    expected = b.double() @ a.double()
    down, up = balanced(a, b)
    torch.testing.assert_close(up.double() @ down.double(), expected, atol=1e-6, rtol=1e-4)
    rounded = up.bfloat16().double() @ down.bfloat16().double()
    assert float((rounded - expected).norm() / expected.norm()) < 0.01
    naive = b.bfloat16().double() @ a.bfloat16().double()
    assert float((naive - expected).norm() / expected.norm()) > 0.1


@pytest.mark.parametrize("dora", [False, True])
def test_adapter_that_peft_trained_is_read(
    dora: bool, tiny: LoadedBase, tiny_dir: Path, tmp_path: Path
) -> None:
    names = layers_of(tiny.model, "all")
    model = get_peft_model(
        plain(tiny_dir).model,
        LoraConfig(r=4, lora_alpha=8, target_modules=names, use_dora=dora),
    ).eval()
    generator = torch.Generator().manual_seed(5)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    expected = model(IDS).logits.detach()
    lora = PeftLora.attach(tiny.model, rank=4, alpha=8, dora=dora)
    tensors = get_peft_model_state_dict(model)
    lora.load(tensors)
    torch.testing.assert_close(tiny.model(IDS).logits.detach(), expected, atol=1e-4, rtol=1e-3)
    write_adapter(
        tmp_path / "adapter",
        name="starter@1",
        tensors=tensors,
        adapter_config=adapter_config(lora, base_model=str(tiny_dir)),
        base_model=str(tiny_dir),
        base_sha256=plain(tiny_dir).fingerprint,
        rank=4,
        created="2026-01-01T00:00:00+00:00",
        train={},
        card="card",
    )
    assert load_file(tmp_path / "adapter" / WEIGHTS).keys() == lora.parameters().keys()
    verify_adapter(tmp_path / "adapter", base_fingerprint=None, max_rank=4, dora=dora)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lora_init": "svd"}, "lora_init must be one of default, pissa"),
        ({"target_modules": "head"}, "target_modules must be one of all, attention, mlp"),
        ({"use_dora": "yes"}, "use_dora must be true or false"),
        ({"lora_init": "pissa", "quantisation": "4bit"}, "which quantisation holds packed"),
        ({"lora_init": "pissa", "start_adapter": "../a"}, "cannot start from start_adapter"),
        ({"lora_init": "pissa", "lora_r": 129}, "lora_r must be at most 128 with lora_init pissa"),
        ({"lora_init": "pissa", "use_dora": True}, "exclude each other"),
        ({"use_dora": True, "start_adapter": "../a"}, "use_dora cannot start from start_adapter"),
        ({"use_dora": True, "fsdp": True}, "fsdp spreads no weights"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_before_anything_loads(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        TrainConfig("model", "starter@1", **settings)


def test_rank_above_a_layers_width_is_refused_by_pissa(tiny: LoadedBase) -> None:
    with pytest.raises(Refused, match="lora_r is 64: PiSSA needs at most the width of"):
        PeftLora.attach(tiny.model, rank=64, alpha=8, init="pissa")


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_attention_and_mlp_are_all_layers(name: str) -> None:
    model = family_model(name)
    attention, mlp = layers_of(model, "attention"), layers_of(model, "mlp")
    assert sorted([*attention, *mlp]) == sorted(layers_of(model, "all"))
    assert attention
    assert bool(mlp) == (name != "Mixtral")  # routed experts have no adapter
