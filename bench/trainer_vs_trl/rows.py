"""The rows both sides train on: ordinary words at sampled lengths, the same for both."""

import json
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from trainer.data.examples import Example
from trainer.data.messages import Message

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "feedback_app" / "feedback" / "projects" / "starter_data"
#: completions of each prompt, by the name of the set
SETS = {"one": 1, "four": 4}
_SIGMA = 0.6
_SHORTEST = 4


@dataclass(frozen=True)
class Shape:
    """Lengths of rows: average tokens of prompt and completion, and the limit of their sum."""

    prompt: int = 143
    completion: int = 162
    limit: int = 512


@dataclass(frozen=True)
class Row:
    """One example as text and as token ids. The text tokenises to exactly these ids (and EOS), so
    that a trainer that reads text uses the same numbers."""

    prompt: str
    completion: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    label: bool

    def example(self, number: int) -> Example:
        """Return a line of examples.jsonl, with its ids as an engine would have served them."""
        return Example(
            id=f"e{number}",
            prompt=(Message("user", self.prompt),),
            completion=self.completion.strip(),
            label=self.label,
            prompt_token_ids=self.prompt_ids,
            completion_token_ids=self.completion_ids,
            finish_reason="stop",
        )

    @classmethod
    def read_all(cls, path: Path) -> list[Self]:
        """Read the rows that `write_rows` wrote."""
        return [
            cls(
                prompt=raw["prompt"],
                completion=raw["completion"],
                prompt_ids=tuple(raw["prompt_ids"]),
                completion_ids=tuple(raw["completion_ids"]),
                label=raw["label"],
            )
            for raw in json.loads(path.read_text(encoding="utf-8"))
        ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows for the child processes."""
    path.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def make_rows(
    tokenizer: Any, *, count: int, per_prompt: int, seed: int = 0, shape: Shape = Shape()
) -> list[Row]:
    """Return `count` rows in a shuffled order, `per_prompt` of them per prompt, half of them up.

    The prompts do not begin with a common system message: neither side gains from a shared prefix.
    """
    rng = random.Random(f"{seed}/{count}/{per_prompt}")
    words = _words(rng)
    rows = []
    for prompt_length, completion_lengths in _lengths(rng, count // per_prompt, per_prompt, shape):
        prompt, prompt_ids = _text(tokenizer, words, prompt_length, opening=True)
        for length in completion_lengths:
            completion, ids = _text(tokenizer, words, length - 1, opening=False)
            rows.append(
                Row(
                    prompt=prompt,
                    completion=completion,
                    prompt_ids=prompt_ids,
                    completion_ids=(*ids, tokenizer.eos_token_id),
                    label=len(rows) % 2 == 0,
                )
            )
    rng.shuffle(rows)
    return rows


def _words(rng: random.Random) -> Iterator[str]:
    """Yield words of the starter prompts without end, prompt by prompt in random order."""
    texts = [
        message["content"]
        for name in ("prompts.jsonl", "unseen.jsonl")
        for line in (STARTER / name).read_text(encoding="utf-8").splitlines()
        for message in json.loads(line)["messages"]
    ]
    while True:
        yield from rng.choice(texts).split()


def _text(
    tokenizer: Any, words: Iterator[str], length: int, *, opening: bool
) -> tuple[str, tuple[int, ...]]:
    """Return words of `length` tokens together, or a few less to end at a whole word."""
    text, ids = "", []
    for word in words:
        piece = word if opening and not text else f" {word}"
        found = tokenizer.encode(piece, add_special_tokens=False)
        if text and len(ids) + len(found) > length:
            break
        text += piece
        ids += found
    return text, tuple(ids)


def _lengths(
    rng: random.Random, prompts: int, per_prompt: int, shape: Shape
) -> list[tuple[int, list[int]]]:
    """Return tokens of each prompt and of its completions: log-normal, cut at the limit of the sum
    and scaled to the requested averages."""
    of_prompts = _spread(rng, prompts)
    of_completions = _spread(rng, prompts * per_prompt)
    prompt_scale, completion_scale = float(shape.prompt), float(shape.completion)
    for _ in range(100):
        found = []
        for number, of_prompt in enumerate(of_prompts):
            prompt = min(max(prompt_scale * of_prompt, _SHORTEST), shape.limit / 2)
            room = shape.limit - prompt
            own = of_completions[number * per_prompt : (number + 1) * per_prompt]
            found.append(
                (prompt, [min(max(completion_scale * value, _SHORTEST), room) for value in own])
            )
        prompt_scale *= shape.prompt * prompts / sum(prompt for prompt, _ in found)
        completion_scale *= (
            shape.completion * prompts * per_prompt / sum(sum(lengths) for _, lengths in found)
        )
    return [(round(prompt), [int(length) for length in lengths]) for prompt, lengths in found]


def _spread(rng: random.Random, count: int) -> list[float]:
    """Return factors of a log-normal distribution in random order: its quantiles, so that a few
    rows represent the distribution."""
    normal = statistics.NormalDist(0, _SIGMA)
    factors = [math.exp(normal.inv_cdf((number + 0.5) / count)) for number in range(count)]
    rng.shuffle(factors)
    return factors
