"""What of a model decides about memory and time: counted on the meta device, no weights loaded."""

from dataclasses import dataclass
from typing import Any, Self

import torch

from trainer.models.layers import layer_shape, linear_layers


@dataclass(frozen=True)
class Architecture:
    """Sizes of a causal LM. Widths are elements a token.

    `norms` is the summed width of a layer's norms, `intermediate` the inner width of an MLP with
    adapters (0: there is none), `experts` how many routed ones of width `expert` a token runs
    through. `packable` weights can be held in 4 bits, `largest_packed` of them are unpacked at one
    time. `layer_class` names the class of the decoder layers, which a backend knows. `adapted` is
    Σ (in + out) over the layers an adapter sits on: times the rank, its size; `experts_adapted` the
    same over all routed experts, `fused` their weights.
    """

    layers: int
    hidden: int
    query: int
    key_value: int
    heads: int
    intermediate: int
    experts: int
    expert: int
    gated: bool
    norms: int
    rms_norms: bool
    softcapped: bool
    layer_class: str
    vocabulary: int
    parameters: int
    active: int
    packable: int
    largest_packed: int
    largest_layer: int
    adapted: int
    experts_adapted: int
    fused: int

    @classmethod
    def of(cls, config: Any) -> Self:
        """Build the model of a transformers configuration without weights, and count."""
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        text = model.config.get_text_config()
        layer = next(
            module[0]
            for module in model.get_decoder().modules()
            if isinstance(module, torch.nn.ModuleList) and len(module) == text.num_hidden_layers
        )
        shapes = [layer_shape(linear) for linear in linear_layers(model).values()]
        routed = [weight.shape for weight in model.parameters() if weight.ndim == 3]
        fused = sum(shape.numel() for shape in routed)
        parameters = sum(weight.numel() for weight in model.parameters())
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_value = (getattr(text, "num_key_value_heads", None) or heads) * width
        norms, rms_norms = _norms(layer, text.hidden_size, heads * width, key_value)
        intermediate, experts, expert = _mlps(text, mixture=fused > 0)
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            query=heads * width,
            key_value=key_value,
            heads=heads,
            intermediate=intermediate,
            experts=experts,
            expert=expert,
            gated=any("gate" in name for name, _ in layer.named_parameters()),
            norms=norms,
            rms_norms=rms_norms,
            softcapped=bool(getattr(text, "attn_logit_softcapping", None)),
            layer_class=type(layer).__name__,
            vocabulary=text.vocab_size,
            parameters=parameters,
            active=parameters - (_idle(text, fused) if fused else 0),
            packable=sum(out * into for out, into in shapes) + fused,
            largest_packed=max(
                [fused // text.num_hidden_layers, *(out * into for out, into in shapes)]
            ),
            largest_layer=sum(weight.numel() for weight in layer.parameters()),
            adapted=sum(out + into for out, into in shapes),
            experts_adapted=sum(count * (one + other) for count, one, other in routed),
            fused=fused,
        )


def _mlps(text: Any, *, mixture: bool) -> tuple[int, int, int]:
    """Return the inner width of an MLP with adapters, routed experts a token runs through, their
    width."""
    whole = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    if not mixture:
        return whole, 0, 0
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    return shared, text.num_experts_per_tok, getattr(text, "moe_intermediate_size", None) or whole


def _idle(text: Any, fused: int) -> int:
    """Return weights of the experts that a token does not run through."""
    count = getattr(text, "num_local_experts", None) or text.num_experts
    return fused - fused * text.num_experts_per_tok // count


def _norms(layer: Any, hidden: int, query: int, key_value: int) -> tuple[int, bool]:
    """Return the summed width of a layer's norms, and whether they are RMSNorms."""
    width, rms = 0, False
    for name, module in layer.named_modules():
        if "norm" not in type(module).__name__.lower():
            continue
        rms = rms or "rms" in type(module).__name__.lower()
        if module.weight.numel() == hidden:
            width += hidden
        else:  # of queries or keys, head by head
            width += query if name.rpartition(".")[2].startswith("q") else key_value
    return width, rms
