"""Files for llama.cpp: a real llama.cpp answers as the trainer's own code does."""

import json
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.tiny import make_tiny_adapter, tiny_tokenizer
from trainer.__main__ import main
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.artifacts.gguf.export import ADAPTER, MERGED, export_gguf
from trainer.artifacts.gguf.vocabulary import split_of, vocabulary_of
from trainer.errors import Refused, TrainerError
from trainer.evaluation.generate import Sampling, generate
from trainer.models.gguf_base import SPLITS, unpack_gguf
from trainer.models.loading import LoadedBase, load_base, load_tokenizer, prepare

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = [
    f"<|im_start|>user\n{text} {number}<|im_end|>\n<|im_start|>assistant\n"
    for number in range(10)
    for text in ("Bread?", "Was ist in 2024 Öl, naïve señor?", "a\n\n  b", "日本語 🙂", "1234567 x")
]
ANSWER_TOKENS = 16
GREEDY = Sampling(max_tokens=ANSWER_TOKENS, temperature=0)


def llama_cpp(
    model: Path, prompts: list[str], *, adapter: Path | None = None, max_tokens: int = ANSWER_TOKENS
) -> list[dict[str, list[int]]]:
    """Return the token ids of prompts and greedy answers, as llama.cpp finds them."""
    asked = {
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        "prompts": prompts,
        "max_tokens": max_tokens,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.artifacts.llama_cpp"],
        cwd=ROOT,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, list[int]]] = json.loads(done.stdout)
    return found


def ours(base: LoadedBase, prompts: list[str]) -> list[dict[str, list[int]]]:
    """Return the same from the trainer's own code."""
    ids = [base.tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
    answers = generate(base.model, base.tokenizer, ids, GREEDY)
    return [
        {"prompt": prompt, "answer": list(answer.token_ids)}
        for prompt, answer in zip(ids, answers, strict=True)
    ]


def until_end(found: list[dict[str, list[int]]], base: LoadedBase) -> list[dict[str, list[int]]]:
    """Cut answers at a token that ends them: llama.cpp also ends at <|endoftext|>."""
    ends = set(base.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    return [
        {**one, "answer": list(takewhile(lambda token: token not in ends, one["answer"]))}
        for one in found
    ]


@pytest.fixture
def adapter(tiny: LoadedBase, tmp_path: Path) -> Path:
    make_tiny_adapter(tmp_path / "adapter", tiny)
    return tmp_path / "adapter"


@pytest.fixture
def base_file(tiny: LoadedBase, tiny_dir: Path, tmp_path: Path) -> Path:
    """The base as GGUF: merged with an adapter that adds nothing."""
    make_tiny_adapter(tmp_path / "nothing", tiny, strength=0)
    return export_gguf(str(tiny_dir), tmp_path / "nothing", tmp_path / "base") / MERGED


@pytest.mark.slow
@pytest.mark.parametrize("rslora", [False, True])
def test_merged_model_and_adapter_answer_as_here(
    rslora: bool, tiny: LoadedBase, tiny_dir: Path, base_file: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    make_tiny_adapter(adapter, tiny, rslora=rslora)
    command = ["export", "--model", str(tiny_dir), "--adapter", str(adapter)]
    assert main([*command, "--out", str(tmp_path / "new" / "out")]) == 0
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == [ADAPTER, MERGED]

    plain = until_end(ours(tiny, PROMPTS), tiny)
    with adapted(tiny, adapter):
        expected = until_end(ours(tiny, PROMPTS), tiny)

    assert expected != plain
    assert until_end(llama_cpp(base_file, PROMPTS), tiny) == plain
    assert until_end(llama_cpp(out / MERGED, PROMPTS), tiny) == expected
    assert until_end(llama_cpp(base_file, PROMPTS, adapter=out / ADAPTER), tiny) == expected


@pytest.mark.slow
def test_qwen_with_biases_answers_as_here(tmp_path: Path) -> None:
    """Its rows keep their order, its attention has biases, and its tokenizer a split of its own."""
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 8,  # more rows than tokens, as models are padded
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Qwen2ForCausalLM(config)
        for name, values in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(values, std=0.3)
    model.save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    base = load_base(str(tmp_path / "qwen"), dtype="float32", device="cpu")
    make_tiny_adapter(tmp_path / "adapter", base)
    assert split_of(json.loads(base.tokenizer.backend_tokenizer.to_str())) == "qwen2"
    out = export_gguf(str(tmp_path / "qwen"), tmp_path / "adapter", tmp_path / "out")
    with adapted(base, tmp_path / "adapter"):
        expected = until_end(ours(base, PROMPTS[:10]), base)
    assert until_end(llama_cpp(out / MERGED, PROMPTS[:10]), base) == expected


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounding_and_no_more(
    dtype: str, tiny: LoadedBase, tiny_dir: Path, adapter: Path, tmp_path: Path
) -> None:
    merged = export_gguf(str(tiny_dir), adapter, tmp_path / "out", dtype=dtype) / MERGED
    whole = export_gguf(str(tiny_dir), adapter, tmp_path / "whole", dtype="float32") / MERGED
    exact = {one.name: one for one in gguf.GGUFReader(whole).tensors}
    for tensor in gguf.GGUFReader(merged).tensors:
        found = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
        reference = torch.tensor(exact[tensor.name].data)
        bound = 2**-8 if dtype == "bfloat16" else 2**-11
        torch.testing.assert_close(found, reference, atol=1e-6, rtol=2 * bound)
        assert (tensor.tensor_type.name == "F32") == (reference.dim() == 1)
    assert merged.stat().st_size < 0.7 * whole.stat().st_size


def test_dora_adapter_has_a_merged_form_only(
    tiny_dir: Path, tiny: LoadedBase, adapter: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    tensors = load_file(adapter / WEIGHTS)
    assert not any("magnitude" in name for name in tensors)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    from trainer.artifacts.adapter_directory import write_adapter

    rows = {
        name.replace("lora_B.weight", "lora_magnitude_vector"): values.norm(dim=1) + 1
        for name, values in tensors.items()
        if "lora_B" in name
    }
    write_adapter(
        tmp_path / "dora",
        name="dora@1",
        tensors={**tensors, **rows},
        adapter_config={**settings, "use_dora": True},
        base_model=tiny.name,
        base_sha256=tiny.fingerprint,
        rank=4,
        created="2026-01-01T00:00:00+00:00",
        train={},
        card="# DoRA\n",
    )
    out = export_gguf(str(tiny_dir), tmp_path / "dora", tmp_path / "out")
    assert [path.name for path in out.iterdir()] == [MERGED]


def test_existing_directory_is_not_replaced(tiny_dir: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match="exists already"):
        export_gguf(str(tiny_dir), adapter, tmp_path / "out")


def test_full_disk_leaves_nothing(
    tiny_dir: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space"):
        export_gguf(str(tiny_dir), adapter, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_damaged_adapter_is_refused(tiny_dir: Path, adapter: Path, tmp_path: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: values + 1 for name, values in tensors.items()}, adapter / WEIGHTS)
    with pytest.raises(Refused):
        export_gguf(str(tiny_dir), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_splits_that_llama_cpp_has_no_name_for_are_refused() -> None:
    raw = tiny_tokenizer().backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False)

    def split(pre_tokenizer: Any) -> str:
        raw.pre_tokenizer = pre_tokenizer
        return split_of(json.loads(raw.to_str()))

    assert split(spelled) == "gpt-2"
    assert split(pre_tokenizers.Sequence([digits, spelled])) == "smollm"
    for other in (
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), spelled]),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), spelled]),
    ):
        with pytest.raises(Refused, match="byte-level BPE"):
            split(other)


def test_padding_rows_and_special_tokens_have_their_types() -> None:
    tokenizer = tiny_tokenizer()
    found = vocabulary_of(tokenizer, size=len(tokenizer) + 2)
    assert len(found.tokens) == len(found.types) == len(tokenizer) + 2
    assert found.types[-1] == gguf.TokenType.UNUSED
    assert found.types[tokenizer.eos_token_id] == gguf.TokenType.CONTROL
    assert found.types[tokenizer.convert_tokens_to_ids("a")] == gguf.TokenType.NORMAL


@pytest.mark.long
@pytest.mark.model
def test_smollm_answers_as_here(tmp_path: Path) -> None:
    model = prepare(ROOT / "var" / "models")
    base = load_base(str(model), dtype="float32", device="cpu")
    make_tiny_adapter(tmp_path / "adapter", base, strength=0.05)
    out = export_gguf(str(model), tmp_path / "adapter", tmp_path / "out", dtype="float32")
    with adapted(base, tmp_path / "adapter"):
        expected = until_end(ours(base, PROMPTS), base)
    assert until_end(llama_cpp(out / MERGED, PROMPTS), base) == expected


# -- a base from a GGUF file


@pytest.fixture
def file(tiny_dir: Path, tiny: LoadedBase, tmp_path: Path) -> Path:
    """The tiny base as a GGUF file in bfloat16."""
    make_tiny_adapter(tmp_path / "nothing", tiny, strength=0)
    out = export_gguf(str(tiny_dir), tmp_path / "nothing", tmp_path / "file", dtype="bfloat16")
    return out / MERGED


def test_base_is_unpacked_from_a_file(file: Path, tiny_dir: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    command = ["prepare", "--models", str(models), "--model", "mine", "--gguf", str(file)]
    assert main(command) == 0

    unpacked = load_base(str(models / "mine"), dtype="bfloat16", device="cpu")
    original = load_base(str(tiny_dir), dtype="bfloat16", device="cpu")
    assert unpacked.fingerprint == original.fingerprint, "adapters of either fit the other"
    expected = original.model.state_dict()
    for name, values in unpacked.model.state_dict().items():
        torch.testing.assert_close(values, expected[name], atol=0, rtol=0)
    assert unpacked.tokenizer.chat_template == original.tokenizer.chat_template
    assert ours(unpacked, PROMPTS) == ours(original, PROMPTS)
    assert sorted(path.name for path in models.iterdir()) == ["mine"]


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
def test_unpacked_tokenizer_splits_text_as_llama_cpp_does(
    split: str, file: Path, tmp_path: Path
) -> None:
    # the tiny vocabulary's last merges become some that only one way of splitting or another allows
    pairs = ["1 2", "3 4", "12 34", "Ġ 1", "' L"]
    fields = gguf.GGUFReader(file).fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    changed = {
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": tokens[: -len(pairs)] + [one.replace(" ", "") for one in pairs],
        "tokenizer.ggml.merges": merges[: -len(pairs)] + pairs,
    }
    named = tmp_path / "named.gguf"
    with_fields(file, named, changed)
    tokenizer = load_tokenizer(str(unpack_gguf(named, tmp_path / "model", say=quiet)))

    texts = [*PROMPTS, "I'LL pay 12345.67 €\r\n\r\n  x\ty", "''s  don't\u3000é́ 1 22 333 4444"]
    found = llama_cpp(named, texts, max_tokens=1)
    assert [tokenizer.encode(text, add_special_tokens=False) for text in texts] == [
        one["prompt"] for one in found
    ]
    assert split_of(json.loads(tokenizer.backend_tokenizer.to_str())) == split


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"split.count": 3}, "join the parts"),
        ({"tokenizer.ggml.pre": "tekken"}, "'tekken'"),
        ({"tokenizer.ggml.model": "llama"}, "'llama'"),
        ({"tokenizer.chat_template": None}, "no chat template"),
        ({"general.architecture": "unheard-of"}, "unheard-of"),
    ],
)
def test_file_that_cannot_be_unpacked_is_refused(
    changed: dict[str, Any], why: str, file: Path, tmp_path: Path
) -> None:
    with_fields(file, tmp_path / "changed.gguf", changed)
    with pytest.raises(TrainerError, match=why):
        unpack_gguf(tmp_path / "changed.gguf", tmp_path / "models" / "mine", say=quiet)
    assert not list((tmp_path / "models").glob("*")) + list((tmp_path / "models").glob(".*"))


def test_damaged_file_full_disk_and_used_name_are_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "mine"
    with pytest.raises(Refused, match="There is no file"):
        unpack_gguf(tmp_path / "nothing.gguf", target)
    damaged = tmp_path / "damaged.gguf"
    for content in (b"", b"GGUF", b"no such thing" * 50, file.read_bytes()[:-5000]):
        damaged.write_bytes(content)
        with pytest.raises(Refused, match="no complete GGUF file"):
            unpack_gguf(damaged, target, say=quiet)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(Refused, match="GiB free"):
        unpack_gguf(file, target, say=quiet)
    target.mkdir()
    with pytest.raises(Refused, match="exists already"):
        unpack_gguf(file, target, say=quiet)


def quiet(line: str) -> None:
    """Show nothing."""


def with_fields(file: Path, out: Path, changed: dict[str, Any]) -> None:
    """Copy a GGUF file with other values of some fields; None leaves a field out."""
    reader = gguf.GGUFReader(file)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = changed.get("general.architecture", fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(out, architecture)
    for name in fields.keys() | changed.keys():
        if name == "general.architecture" or changed.get(name, "") is None:
            continue
        value = changed.get(name, fields[name].contents() if name in fields else None)
        if name in fields:
            kinds = fields[name].types
            writer.add_key_value(name, value, kinds[0], kinds[1] if len(kinds) > 1 else None)
        else:
            writer.add_uint16(name, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
