"""The step of a run that needs most memory, found without computing it."""

from collections.abc import Sequence

from trainer.data.batches import Step
from trainer.data.tokenise import Tokenised
from trainer.distributed.process_group import ProcessGroup
from trainer.forward.logprobs import Row, packs
from trainer.forward.segments import forest
from trainer.planning.memory import Load

#: Steps that are looked at closely: those with most tokens, and those with most that still wait
#: together.
_CANDIDATES = 32


def peak_load(
    examples: Sequence[Tokenised],
    steps: Sequence[Step],
    *,
    token_budget: int,
    held_tokens: int,
    devices: int = 1,
    sharded: bool = False,
) -> Load:
    """Return the largest load that any of the steps puts on a device.

    Rows are packed as training packs them. Where on every device all tokens of its packs are at
    most `held_tokens`, their activations wait together until z₀ is known; else one pack at a time
    (0 where the loss needs no z₀). Devices that share the base deal packs out in another way
    (`ProcessGroup.share`).
    """
    sized = sorted(steps, key=lambda step: -sum(examples[index].length for index in step.examples))
    waiting = [
        step
        for step in sized
        if sum(examples[index].length for index in step.examples) <= held_tokens * devices
    ]
    worst = Load(0, 0)
    for step in [*sized[:_CANDIDATES], *waiting[:_CANDIDATES]]:
        rows = [(examples[index].prompt, examples[index].completion) for index in step.examples]
        for load in _loads(rows, token_budget, held_tokens, devices, sharded=sharded):
            worst = max(worst, load, key=lambda load: (load.tokens, load.pairs))
    return worst


def _loads(
    rows: Sequence[Row], token_budget: int, held_tokens: int, devices: int, *, sharded: bool
) -> list[Load]:
    groups = [[rows[index] for index in group] for group in packs(rows, token_budget)]
    sizes = [sum(len(prompt) + len(answer) for prompt, answer in group) for group in groups]
    shares = [
        [item.piece for item in ProcessGroup(device, devices, sharded).share(sizes)]
        for device in range(devices)
    ]
    wait = all(sum(sizes[piece] for piece in mine) <= held_tokens for mine in shares)
    found = []
    for mine in shares:
        each = [_load_of(groups[piece]) for piece in mine]
        if wait:
            tokens, pairs = sum(load.tokens for load in each), sum(load.pairs for load in each)
            each = [Load(tokens, pairs)]
        found += each
    return found


def _load_of(rows: Sequence[Row]) -> Load:
    """Return a pack's load: tokens that several rows begin with count once."""
    tree = forest([(*prompt, *completion)[:-1] for prompt, completion in rows])
    pairs = sum(
        segment.span.length * (segment.position + segment.span.length) for segment in tree.segments
    )
    return Load(tree.length, pairs)
