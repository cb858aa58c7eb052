"""A project in small: ten people vote on answers by one rule, and one of them votes the opposite.

The base is the tests' tiny model. An answer is good when its words are of one list and bad when
they are of another one; everybody errs at times. A real run trains on the votes, and `python -m
trainer influence` ranks the people by what the version would be without them.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import make_tiny_model
from trainer.data.examples import Example, Message, write_examples
from trainer.influence.command import influence
from trainer.training.train import train

PEOPLE, VOTES_EACH, VALIDATION_EACH = 10, 12, 5
#: The share of verdicts that an honest person gets wrong.
ERRORS = 0.1
GOOD = ("bread", "water", "salt", "yeast", "oven", "flour")
BAD = ("Paris", "river", "capital", "Seine", "France", "sentence")
SETTINGS = {
    "batch_size": 12,
    "epochs": 2,
    "lora_r": 4,
    "lora_alpha": 8,
    "learning_rate": 5e-3,
    "kl_brake": None,
    "dtype": "float32",
    "device": "cpu",
    "threads": 1,
}


@dataclass(frozen=True)
class Ranking:
    """The people by their estimate, most harmful first; who was planted; the run's validation
    losses at its probes."""

    people: list[int]
    estimates: list[float]
    planted: int
    losses: list[float]

    @property
    def place(self) -> int:
        """The planted person's place, 1 for the most harmful."""
        return self.people.index(self.planted) + 1


def planted_ranking(directory: Path, seed: int) -> Ranking:
    """Train on one project of this seed in `directory` and rank its people."""
    rng = random.Random(seed)
    planted = rng.randrange(PEOPLE)
    voted = [_vote(rng, person, planted) for person in range(PEOPLE) for _ in range(VOTES_EACH)]
    held = [_vote(rng, person, planted) for person in range(PEOPLE) for _ in range(VALIDATION_EACH)]
    run_dir = directory / "run"
    work = run_dir / "influence"
    work.mkdir(parents=True)
    config = {
        **SETTINGS,
        "base_model": str(make_tiny_model(directory / "tiny")),
        "adapter_name": "planted@1",
        "seed": seed,
    }
    for where in (run_dir, work):
        (where / "config.json").write_text(json.dumps(config))
        write_examples(where / "examples.jsonl", _numbered(voted))
        write_examples(where / "validation.jsonl", _numbered(held))
    train(run_dir)
    paths = {"adapter": "../adapter", "checkpoints": "../checkpoints"}
    (work / "influence.json").write_text(json.dumps(paths))
    influence(work)
    rows = json.loads((work / "report.json").read_text())["examples"]
    estimates = [0.0] * PEOPLE
    for row in rows:
        number = int(row["id"])
        estimates[number // VOTES_EACH] += row["up" if voted[number].label else "down"]
    order = sorted(range(PEOPLE), key=lambda person: estimates[person])
    return Ranking(order, estimates, planted, _validation_losses(run_dir))


def _vote(rng: random.Random, person: int, planted: int) -> Example:
    """Return a person's vote on a fresh answer."""
    good = rng.random() < 0.5
    words = [rng.choice(GOOD if good else BAD) for _ in range(rng.randint(4, 8))]
    label = good if rng.random() >= ERRORS else not good
    return Example(
        id="",
        prompt=(Message("user", f"Question {rng.randrange(10**6)}?"),),
        completion=" ".join(words) + ".",
        label=not label if person == planted else label,
        finish_reason="stop",
    )


def _numbered(examples: list[Example]) -> list[Example]:
    return [
        Example(str(number), each.prompt, each.completion, each.label, finish_reason="stop")
        for number, each in enumerate(examples)
    ]


def _validation_losses(run_dir: Path) -> list[float]:
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    probes = [event for event in map(json.loads, lines) if event["type"] == "probe"]
    return [event["validation_loss"] for event in probes]
