"""One of several processes that load a sharded base whose weights only the first can find:
`accelerate launch -m tests.trainer.distributed.loading_once OUT WHOLE BARE` writes
OUT/<rank>.json."""

import json
import os
import sys
from pathlib import Path

import torch

from tests.trainer.distributed.sharing import ROWS
from trainer.data.chat import eos_ids
from trainer.distributed.fsdp import load_sharded
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import TrainerError
from trainer.forward.logprobs import score


def main(out: Path, whole: str, bare: str) -> None:
    torch.set_num_threads(1)
    process_group = ProcessGroup.join(sharded=True)
    name = whole if process_group.first else bare
    found: dict[str, object]
    try:
        base = load_sharded(name, dtype="float32", device="cpu", process_group=process_group)
    except TrainerError as error:
        found = {"error": str(error)}
    else:
        with torch.no_grad():
            values = score(base.model, ROWS).logprobs.values.tolist()
        ends = sorted(eos_ids(base.model, base.tokenizer))
        found = {"fingerprint": base.fingerprint, "values": values, "eos": ends}
    (out / f"{process_group.rank}.json").write_text(json.dumps(found))
    process_group.leave()
    os._exit(0)  # as trainer.__main__ does, for the same reason


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
