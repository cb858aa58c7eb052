"""`python -m trainer export`: an adapter, and base and adapter merged, as GGUF files."""

import shutil
from pathlib import Path

import gguf
import torch

from trainer.artifacts.adapter_directory import Manifest, fsync, verify_adapter
from trainer.artifacts.gguf.tensors import Layout, adapter_tensors, layout_of, stored
from trainer.artifacts.gguf.vocabulary import Vocabulary, vocabulary_of
from trainer.artifacts.merge import adapter_settings, add_to_weights, stored_dtype
from trainer.config import MAX_RANK
from trainer.errors import Refused
from trainer.models.layers import layer_shapes
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import scale_of

ADAPTER, MERGED = "adapter.gguf", "merged.gguf"


def export_gguf(model: str, adapter: Path, out: Path, *, dtype: str = "auto") -> Path:
    """Write adapter.gguf and merged.gguf to `out`, whole or not at all; returns `out`.

    `dtype` is what the merged model's matrices are stored in, vectors are float32; `auto` is what
    the base is stored in. The adapter is float32. A DoRA adapter has only a merged form, as
    llama.cpp adds s · B A and nothing else. Raises Refused when `out` exists or llama.cpp's form of
    this model is not known here, BadArtifact, TrainerError when the base does not load, OSError.
    """
    if out.exists() or out.is_symlink():
        raise Refused(f"{out} exists already: name a directory that does not, nothing is replaced")
    verify_adapter(adapter, base_fingerprint=None, max_rank=MAX_RANK, dora=True)
    kept = stored_dtype(model)
    base = load_base(model, dtype="float32" if dtype == "float32" else kept, device="cpu")
    layout = layout_of(base.model.config)
    vocabulary = vocabulary_of(base.tokenizer, size=base.model.config.vocab_size)
    manifest = verify_adapter(
        adapter,
        base_fingerprint=base.fingerprint,
        max_rank=MAX_RANK,
        shapes=layer_shapes(base.model),
        dora=True,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        if not adapter_settings(adapter).get("use_dora"):
            _write_adapter(partial / ADAPTER, adapter, manifest, layout)
        add_to_weights(base, adapter)
        kind = getattr(torch, kept if dtype == "auto" else dtype)
        _write_model(partial / MERGED, base, manifest.name, layout, vocabulary, kind)
        for file in partial.iterdir():
            fsync(file)
        fsync(partial)
        partial.rename(out)
        fsync(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def _write_adapter(path: Path, adapter: Path, manifest: Manifest, layout: Layout) -> None:
    writer = gguf.GGUFWriter(path, layout.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(manifest.name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp divides by the rank; of rsLoRA the scale is another one
    scale = scale_of(adapter_settings(adapter))
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scale * manifest.rank)
    for name, tensor in adapter_tensors(adapter, layout):
        writer.add_tensor(name, tensor)
    _finish(writer)


def _write_model(
    path: Path,
    base: LoadedBase,
    name: str,
    layout: Layout,
    vocabulary: Vocabulary,
    dtype: torch.dtype,
) -> None:
    writer = gguf.GGUFWriter(path, layout.name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(f"{name}, merged")
    layout.describe(writer)
    vocabulary.describe(writer)
    for key, tensor in base.model.state_dict().items():
        if key == "lm_head.weight" and base.model.config.tie_word_embeddings:
            continue  # the embedding, which llama.cpp takes where there is no output matrix
        values, kind = stored(layout.ordered(key.rpartition(".")[0], tensor), dtype)
        writer.add_tensor(layout.key(key), values, raw_dtype=kind)
    _finish(writer)


def _finish(writer: gguf.GGUFWriter) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
