"""One of several processes of a run, whose second one runs out of memory once:
`accelerate launch -m tests.trainer.distributed.short_of_memory RUN_DIR MARK`. MARK is a file that
says that it has happened already."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from trainer.__main__ import main
from trainer.distributed.process_group import rank
from trainer.training import step


def fail_once(mark: Path) -> None:
    """Let the next pack that is scored with gradients find no memory."""
    real = step.score

    def scarce(model: Any, rows: Any, **given: Any) -> Any:
        scored = real(model, rows, **given)
        if torch.is_grad_enabled() and not mark.exists():
            mark.touch()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scored

    step.score = scarce


if __name__ == "__main__":
    torch.set_num_threads(1)
    if rank() == 1:
        fail_once(Path(sys.argv[2]))
    code = main(["train", sys.argv[1]])
    sys.stderr.flush()
    os._exit(code)  # as trainer.__main__ does, for the same reason
