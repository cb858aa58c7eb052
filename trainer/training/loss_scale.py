"""Loss scaling in float16 (Micikevicius et al. 2018, arXiv 1710.03740, Section 3.2).

Gradients below 6e-8 are zero in float16. The loss is multiplied by a scale before the backward pass
and the masters' gradients, which are fp32, are divided by it. A gradient that overflows skips its
step and halves the scale; 2,000 steps without one double it.
"""

from typing import Any

import torch
from torch import Tensor

from trainer.errors import RunFailed

#: Below this scale gradients overflow for another reason than the scale.
_LEAST = 1.0


class LossScale:
    """torch.amp.GradScaler in float16; in other types nothing is scaled."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._scaler: torch.amp.GradScaler | None = None
        if dtype == torch.float16:
            self._scaler = torch.amp.GradScaler(device.type)
            # makes its tensors, which several threads would do at the same time
            self._scaler.scale(torch.zeros((), device=device))

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss whose gradient the masters take."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of the optimiser's parameters by the scale."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def step(
        self, optimizer: torch.optim.Optimizer, *, finite: bool, number: int, advice: str
    ) -> float | None:
        """Take the optimiser's step; return the lower scale instead where the unscaled gradient is
        not finite and the step is skipped. Raises RunFailed where a lower scale cannot help."""
        if self._scaler is None:
            if not finite:
                raise RunFailed("the gradient is not finite", step=number, advice=advice)
            optimizer.step()
            return None
        if finite:
            self._scaler.step(optimizer)
        before = self._scaler.get_scale()
        self._scaler.update()
        if finite:
            return None
        scale = self._scaler.get_scale()
        if not _LEAST <= scale < before:
            raise RunFailed(
                f"the gradient is not finite in float16 at a loss scale of {scale:g}",
                step=number,
                advice=f"set dtype to float32 or bfloat16, or {advice}",
            )
        return scale

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps; None where nothing is scaled."""
        return None if self._scaler is None else self._scaler.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take over the state of a checkpoint."""
        if self._scaler is not None and state is not None:
            self._scaler.load_state_dict(state)
