"""A frozen base that is spread over the processes of a run (FSDP2, `fully_shard`).

Each process keeps a share of every decoder layer and of what surrounds them. A layer's weights are
put together just before it runs, forward and backward, and dropped right after; so a device needs
memory for its share and for one or two whole layers. The head, and the embeddings where they are
tied to it, stay whole everywhere: it runs chunk by chunk, and how many chunks a process has is its
own affair. The adapter is attached afterwards and is not sharded: it is small, and its gradients
are added up once a step as ever.

Only the first process reads the weights, into the host's memory; the others get their shares from
it, tensor by tensor, and never hold the whole base.

All processes must take part in gathering a layer. Therefore every process runs the model equally
often: `ProcessGroup.share` and `reference.complete` see to that.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.distributed.process_group import ProcessGroup
from trainer.errors import TrainerError
from trainer.models.loading import (
    LoadedBase,
    empty_model,
    load_base,
    load_tokenizer,
    resolve_device,
)
from trainer.precision import resolve_precision


@dataclass(frozen=True)
class _Facts:
    """What the first process knows of the base beside its weights, for the others. `types`: of
    every weight, of which a model may keep some in another type than the rest."""

    fingerprint: str
    generation_config: Any
    types: dict[str, torch.dtype]


def load_sharded(name: str, *, dtype: str, device: str, process_group: ProcessGroup) -> LoadedBase:
    """`load_base` for a base of which every process keeps its share only. Raises what `load_base`
    raises; in the other processes TrainerError with the same message."""
    where = resolve_device(device)
    precision = resolve_precision(dtype, where)
    base = _read_by_first(name, precision.name, process_group)
    facts = _facts(base, process_group)
    tokenizer = load_tokenizer(name) if base is None else base.tokenizer
    model = empty_model(name, precision.dtype)
    model.generation_config = facts.generation_config
    for key, weight in model.named_parameters():
        weight.data = weight.data.to(facts.types.get(key, weight.dtype))
    shard(model, device=where, process_group=process_group)
    _fill(model, None if base is None else base.model, device=where)
    warm_up(model, device=where)
    made = LoadedBase(
        model=model,
        tokenizer=tokenizer,
        name=name,
        fingerprint=facts.fingerprint,
        device=where,
        dtype=precision.dtype,
    )
    return replace(made, precision=str(precision))


def shard(model: Any, *, device: torch.device, process_group: ProcessGroup) -> None:
    """Make room on `device` for this process's share of the weights of a model on the meta
    device."""
    mesh = init_device_mesh(device.type, (process_group.size,))
    decoder = model.get_decoder()
    layers = [m for m in decoder.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in reversed(layers):  # what is inside of another comes first
        fully_shard(layer, mesh=mesh)
    whole = set(model.get_output_embeddings().parameters())
    fully_shard(decoder, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    model.to_empty(device=device)
    model.tie_weights()  # moving gives each module a weight of its own


def _read_by_first(name: str, dtype: str, process_group: ProcessGroup) -> LoadedBase | None:
    """Return the whole base in the first process, None in the others; all raise if it cannot be
    read, or else they would wait for it."""
    base, fault = None, None
    if process_group.first:
        try:
            base = load_base(name, dtype=dtype, device="cpu")
        except TrainerError as error:
            fault = error
    (message, *_) = process_group.gather(None if fault is None else str(fault))
    if fault is not None:
        raise fault
    if message is not None:
        raise TrainerError(message)
    return base


def _facts(base: LoadedBase | None, process_group: ProcessGroup) -> _Facts:
    mine = None
    if base is not None:
        types = {key: weight.dtype for key, weight in base.model.named_parameters()}
        mine = _Facts(base.fingerprint, base.model.generation_config, types)
    found: _Facts = process_group.gather(mine)[0]
    return found


def _fill(model: Any, source: Any | None, *, device: torch.device) -> None:
    """Copy the weights and buffers of the first process's model into the shares of all."""
    weights: dict[str, Any] = {} if source is None else source.state_dict()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, weights, options=options)
    known = {} if source is None else dict(source.named_buffers())
    for key, buffer in model.named_buffers():  # rotary frequencies: no part of the state
        if key in known:
            buffer.copy_(known[key])
        dist.broadcast(buffer, src=0)


def warm_up(model: Any, *, device: torch.device) -> None:
    """Run one token. Buffers are made in the first pass; made in inference mode (generation), none
    could train."""
    ids = torch.zeros((1, 1), dtype=torch.long, device=device)
    with torch.no_grad():
        model.get_decoder()(input_ids=ids, use_cache=False)
