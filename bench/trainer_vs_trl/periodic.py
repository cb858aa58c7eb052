"""The cost of the reference for a little new feedback added to much, counted without a model."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.data.batches import epoch_pairs
from trainer.data.tokenise import Tokenised

OLD, NEW = 10_000, 500

Pair = tuple[str, str]  # the key of a prompt, the id of the example whose completion is scored


@dataclass(frozen=True)
class Work:
    """Reference work of a run: pairs to score, and the tokens of their forward passes."""

    pairs: int
    tokens: int


def share_of_a_full_pass(
    per_prompt: int, *, scattered: bool, epochs: int, old: int = OLD, new: int = NEW
) -> tuple[float, float]:
    """Return the cost of `new` examples after a run on `old` ones, over the cost of all with an
    empty cache: in pairs and in tokens. The new examples are last, as snapshots order completions,
    or `scattered` among the old ones, as votes on old answers would be."""
    examples = _examples(old + new, per_prompt)
    known = range(old)
    if scattered:
        known = sorted(random.Random(f"scattered/{per_prompt}").sample(range(old + new), old))
    cache: set[Pair] = set()
    _work([examples[index] for index in known], cache, epochs)
    less, full = _work(examples, cache, epochs), _work(examples, set(), epochs)
    return less.pairs / full.pairs, less.tokens / full.tokens


def _work(examples: Sequence[Tokenised], cache: set[Pair], epochs: int) -> Work:
    """Return the work beyond `cache`, and fill it. As in the trainer, each epoch requests its own
    pairs before its first step, and a prompt runs once per epoch."""
    prompts = {example.prompt_key: len(example.prompt) for example in examples}
    completions = {example.id: len(example.completion) for example in examples}
    pairs = tokens = 0
    for epoch in range(epochs):
        partners = epoch_pairs(examples, 0, epoch)
        wanted = {
            (example.prompt_key, scored.id)
            for index, example in enumerate(examples)
            for scored in (example, examples[partners[index]])
        }
        missing = wanted - cache
        cache |= missing
        pairs += len(missing)
        tokens += sum(completions[scored] for _, scored in missing)
        tokens += sum(prompts[key] for key in {key for key, _ in missing})
    return Work(pairs, tokens)


def _examples(count: int, per_prompt: int) -> list[Tokenised]:
    """Return examples of the benchmark's lengths; their tokens are only counted."""
    rng = random.Random(f"examples/{count}/{per_prompt}")
    prompt_lengths = [round(rng.lognormvariate(4.8, 0.6)) + 1 for _ in range(count)]
    return [
        Tokenised(
            id=f"e{number}",
            prompt=(0,) * prompt_lengths[number // per_prompt],
            completion=(0,) * (round(rng.lognormvariate(4.9, 0.6)) + 1),
            label=number % 2 == 0,
            weight=1.0,
            prompt_key=f"p{number // per_prompt}",
        )
        for number in range(count)
    ]
