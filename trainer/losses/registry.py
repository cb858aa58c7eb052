"""The losses by their names in the configuration."""

from trainer.errors import Refused
from trainer.losses.apo_zero import apo_zero_unpaired
from trainer.losses.base import ExampleLoss, LikelihoodLoss, Loss, PairLoss
from trainer.losses.bco import bco
from trainer.losses.dpo import dpo
from trainer.losses.kto import TOKEN_CLAMP, kto
from trainer.losses.sft import sft

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        ExampleLoss("kto", kto, anchor="z0"),
        ExampleLoss("kto_clamped", kto, anchor="z0", clamp=TOKEN_CLAMP),
        ExampleLoss("apo_zero_unpaired", apo_zero_unpaired),
        ExampleLoss("bco", bco, anchor="mean"),
        LikelihoodLoss("sft", sft),
        PairLoss("dpo", dpo),
    )
}
#: Former name → present name.
RENAMED = {"kto_humanline": "kto_clamped"}


def loss_fault(name: object) -> str | None:
    """Return what is wrong with a loss's name, None for a registered one."""
    if isinstance(name, str) and name in LOSSES:
        return None
    fault = f"loss must be one of {', '.join(LOSSES)}, not {name!r}"
    if isinstance(name, str) and name in RENAMED:
        fault += f": it is called {RENAMED[name]!r} now, set that"
    return fault


def loss_named(name: str) -> Loss:
    """Return the registered loss. Raises Refused with the names that exist."""
    fault = loss_fault(name)
    if fault is not None:
        raise Refused(fault)
    return LOSSES[name]
