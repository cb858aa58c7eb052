"""A frozen base that is spread over the processes of a run (FSDP2, `fully_shard`).

Each process keeps a share of every decoder layer and of what surrounds them. A layer's weights are
put together just before it runs, forward and backward, and dropped right after; so a device needs
memory for its share and for one or two whole layers. The head, and the embeddings where they are
tied to it, stay whole everywhere: it runs chunk by chunk, and how many chunks a process has is its
own affair. The adapter is attached afterwards and is not sharded: it is small, and its gradients
are added up once a step as ever.

All processes must take part in gathering a layer. Therefore every process runs the model equally
often: `ProcessGroup.share` and `reference.complete` see to that.
"""

from dataclasses import replace
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.distributed.process_group import ProcessGroup
from trainer.models.loading import LoadedBase, load_base, resolve_device
from trainer.precision import resolve_precision


def load_sharded(name: str, *, dtype: str, device: str, process_group: ProcessGroup) -> LoadedBase:
    """`load_base` for a base of which every process keeps its share only. The whole is read into
    the host's memory, never into the device's. Raises what `load_base` raises."""
    where = resolve_device(device)
    precision = resolve_precision(dtype, where)
    base = load_base(name, dtype=precision.name, device="cpu")
    shard(base.model, device=where, process_group=process_group)
    return replace(base, device=where, precision=str(precision))


def shard(model: Any, *, device: torch.device, process_group: ProcessGroup) -> None:
    """Keep this process's share of a model's weights, on `device`, and drop the rest."""
    mesh = init_device_mesh(device.type, (process_group.size,))
    decoder = model.get_decoder()
    layers = [m for m in decoder.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in reversed(layers):  # what is inside of another comes first
        fully_shard(layer, mesh=mesh)
    whole = set(model.get_output_embeddings().parameters())
    fully_shard(decoder, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    model.to(device)
    # Buffers are made in the first pass; made in inference mode (generation), none could train.
    with torch.no_grad():
        decoder(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=False)
