"""The eight studies: which cells each compares, on which votes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from bench.evidence.cells import Cell, Outcome, outcome, version_of
from bench.evidence.pool import (
    WORK,
    PoolAnswer,
    answers_of,
    kept,
    pool,
    training_prompts,
)
from bench.evidence.rules import RULES
from bench.evidence.site import Site, drawn, examples_of
from trainer.data.examples import Example, read_examples, write_examples

SEEDS = (0, 1, 2)
#: Votes that an adapter is trained on where a study does not vary them.
VOTES = 80
#: The rule of the studies that look at one.
RULE = "form"
OpenSite = Callable[[], Site]
#: Gives the outcome for a seed.
Arm = Callable[[int], Outcome]


@dataclass(frozen=True)
class Table:
    """Arms that are compared under one rule. `against` is the arm that the others are compared
    with; `along` are the arms' numbers where they lie on an axis of that name."""

    rule: str
    arms: Mapping[str, Arm]
    against: str
    along: tuple[str, Mapping[str, Sequence[str]]] | None = None


@dataclass(frozen=True)
class Study:
    """A question and the tables that answer it."""

    name: str
    title: str
    asks: str
    tables: Callable[[OpenSite], list[Table]]


def voted(name: str, make: Callable[[], list[Example]]) -> list[Example]:
    """Return the examples of a file, made by voting if it is missing."""
    path = WORK / "votes" / f"{name}.jsonl"
    if not path.exists():
        examples = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        write_examples(unfinished, examples)
        unfinished.replace(path)
    return read_examples(path)


def pool_votes(open_site: OpenSite, rule: str) -> list[Example]:
    """Return the whole pool with one vote by the rule on each answer."""

    def vote() -> list[Example]:
        site = open_site()
        project = site.project(f"pool-{rule}", pool())
        site.vote(project, RULES[rule])
        return examples_of(project)

    return voted(f"pool-{rule}", vote)


def trained(examples_for: Callable[[int], Sequence[Example]], **settings: object) -> Arm:
    """Return the arm that is trained on what a function gives for the seed."""
    return lambda seed: outcome(Cell(seed, tuple(examples_for(seed)), settings))


def losses(open_site: OpenSite) -> list[Table]:
    names = {
        "KTO": "kto",
        "KTO, clamped tokens": "kto_clamped",
        "DPO": "dpo",
        "SFT on the ups": "sft",
        "APO-zero": "apo_zero_unpaired",
        "BCO": "bco",
    }
    found = []
    for rule in RULES:
        votes = pool_votes(open_site, rule)
        arms = {
            label: trained(partial(drawn, votes, VOTES), loss=loss)
            for label, loss in names.items()
            if rule == RULE or loss in ("kto", "dpo", "sft")
        }
        found.append(Table(rule, arms, "KTO"))
    return found


def imbalance(open_site: OpenSite) -> list[Table]:
    votes = pool_votes(open_site, RULE)
    ratios = {"1 : 9": 0.1, "1 : 1": 0.5, "4 : 1": 0.8, "9 : 1": 0.9, "19 : 1": 0.95}

    def mixed(share: float, seed: int) -> list[Example]:
        ups = [one for one in votes if one.label]
        downs = [one for one in votes if not one.label]
        draw = Random(seed)
        count = round(VOTES * share)
        return draw.sample(ups, count) + draw.sample(downs, VOTES - count)

    arms = {}
    for label, share in ratios.items():
        arms[f"{label}, λ by the rule"] = trained(partial(mixed, share))
        if share in (0.8, 0.95):
            arms[f"{label}, λ = 1"] = trained(partial(mixed, share), lambda_d=1.0, lambda_u=1.0)
    return [Table(RULE, arms, "1 : 1, λ by the rule")]


def answers_per_prompt(open_site: OpenSite) -> list[Table]:
    votes = pool_votes(open_site, RULE)

    def one_each(seed: int) -> list[Example]:
        order = list(votes)
        Random(seed).shuffle(order)
        firsts = {example.prompt: example for example in order}
        return list(firsts.values())[:VOTES]

    arms = {
        "four answers a prompt": trained(partial(drawn, votes, VOTES)),
        "one answer a prompt": trained(one_each),
    }
    return [Table(RULE, arms, "four answers a prompt")]


def sweeps(open_site: OpenSite) -> list[Table]:
    votes = pool_votes(open_site, RULE)
    usual = partial(drawn, votes, VOTES)
    arms = {
        "β 0.5, λ by the rule, rate 1e-3": trained(usual),
        "β 0.1": trained(usual, beta=0.1),
        "β 2": trained(usual, beta=2.0),
        "λ of ups 1, of downs 1": trained(usual, lambda_d=1.0, lambda_u=1.0),
        "rate 2e-4": trained(usual, learning_rate=2e-4),
        "rate 3e-3": trained(usual, learning_rate=3e-3),
    }
    return [Table(RULE, arms, "β 0.5, λ by the rule, rate 1e-3")]


def noise(open_site: OpenSite) -> list[Table]:
    shares = (0, 20, 40)

    def noisy(share: int, overlap: int, seed: int) -> list[Example]:
        if share == 0:  # who votes alike gives the same example once or three times
            return drawn(pool_votes(open_site, RULE), VOTES, seed)

        def vote() -> list[Example]:
            answers = answers_to(drawn(pool_votes(open_site, RULE), VOTES, seed))
            site = open_site()
            project = site.project(f"noise-{share}-{overlap}-{seed}", answers, overlap=overlap)
            site.vote(project, RULES[RULE], noise=share / 100, seed=seed)
            return examples_of(project)

        return voted(f"noise-{share}-{overlap}-{seed}", vote)

    arms = {}
    along: dict[str, list[str]] = {}
    for overlap, label in ((1, "one vote an answer"), (3, "three votes an answer")):
        for share in shares:
            arm = f"{share} % wrong, {label}"
            arms[arm] = trained(partial(noisy, share, overlap))
            along.setdefault(label, []).append(arm)
    return [
        Table(RULE, arms, f"0 % wrong, {'one vote an answer'}", ("votes that are wrong", along))
    ]


def poisoner(open_site: OpenSite) -> list[Table]:
    caps = {"no cap": 100, "cap 50 % (default)": 50, "cap 20 %": 20}

    def poisoned(share: int, seed: int) -> list[Example]:
        def vote() -> list[Example]:
            order = drawn(pool_votes(open_site, RULE), 3 * VOTES, seed)
            site = open_site()
            project = site.project(f"poison-{seed}", answers_to(order))
            honest = range(1, 5)
            cast = project.votes.count()
            site.vote(project, RULES[RULE], people=honest, most=max(0, VOTES - cast))
            voted(f"poison-{seed}-0", lambda: examples_of(project))
            site.vote(project, RULES[RULE], people=[5], wrong=True)
            for cap in caps.values():
                voted(f"poison-{seed}-{cap}", partial(examples_of, project, person_share=cap))
            return read_examples(WORK / "votes" / f"poison-{seed}-{share}.jsonl")

        return voted(f"poison-{seed}-{share}", vote)

    arms = {"no poisoner": trained(partial(poisoned, 0))}
    arms |= {label: trained(partial(poisoned, share)) for label, share in caps.items()}
    return [Table(RULE, arms, "no poisoner")]


ROUNDS, ROUND_PROMPTS = 5, 15
AMOUNTS = (20, 40, 80, 160, 320)


def rounds(open_site: OpenSite) -> list[Table]:
    arms = {}
    along: dict[str, list[str]] = {}
    for label, from_live in (("from base", False), ("from the live version", True)):
        for number in range(1, ROUNDS + 1):
            arm = f"round {number}, {label}"
            arms[arm] = partial(_round_outcome, open_site, from_live, number)
            along.setdefault(label, []).append(arm)
    return [Table(RULE, arms, "round 1, from base", ("round", along))]


def _round_outcome(open_site: OpenSite, from_live: bool, number: int, seed: int) -> Outcome:
    return outcome(_round(open_site, from_live, number, seed))


def _round(open_site: OpenSite, from_live: bool, number: int, seed: int) -> Cell:
    """Return the version after a round: the one before it answers new prompts, people vote, and
    the next is trained. Round 0 is the base."""
    if number == 0:
        return Cell(seed)
    before = _round(open_site, from_live, number - 1, seed)
    # the first round is the same from either start
    name = f"round-{'live' if from_live and number > 1 else 'base'}-{seed}-{number}"

    def vote() -> list[Example]:
        prompts = list(training_prompts())
        Random(seed).shuffle(prompts)
        asked = prompts[(number - 1) * ROUND_PROMPTS : number * ROUND_PROMPTS]

        def answer() -> list[PoolAnswer]:
            model, adapter = version_of(before)
            options = {"model": model, "adapter": adapter, "each": 4}
            return answers_of(asked, seed=700 + 10 * seed + number, **options)

        site = open_site()
        project = site.project(name, kept(WORK / "answers" / f"{name}.json", answer))
        site.vote(project, RULES[RULE])
        return examples_of(project)

    new = voted(name, vote)
    if from_live and len({example.label for example in new}) == 1:
        return before  # no loss learns from one kind alone: the version stays live
    if from_live:
        return Cell(seed, tuple(new), start=before if before.examples else None)
    return Cell(seed, (*before.examples, *new))


def amount(open_site: OpenSite) -> list[Table]:
    votes = pool_votes(open_site, RULE)
    arms = {f"{count} votes": trained(partial(drawn, votes, count)) for count in AMOUNTS}
    return [Table(RULE, arms, f"{VOTES} votes", ("votes", {"KTO": list(arms)}))]


def answers_to(examples: Sequence[Example]) -> list[PoolAnswer]:
    """Return the answers of the pool that these examples are about."""
    wanted = {(example.prompt[-1].content, example.completion) for example in examples}
    return [one for one in pool() if (one.messages[-1]["content"], one.answer.text) in wanted]


STUDIES = [
    Study(
        "losses",
        "Losses",
        "KTO against other losses on the same votes: which learns most from them?",
        losses,
    ),
    Study(
        "imbalance",
        "Class imbalance",
        "What if nearly all votes are ups, or downs?",
        imbalance,
    ),
    Study(
        "answers",
        "Answers per prompt",
        "With the same number of votes: many prompts with one answer, or few with four?",
        answers_per_prompt,
    ),
    Study("sweeps", "β, λ and learning rate", "How much do the settings matter?", sweeps),
    Study(
        "noise",
        "Wrong votes",
        "How many wrong votes are too many, and do three votes an answer help?",
        noise,
    ),
    Study(
        "poisoner",
        "One poisoner",
        "One person votes twice as much as all others together, always against the rule: what does "
        "the cap on one person's votes save?",
        poisoner,
    ),
    Study(
        "rounds",
        "Five rounds",
        "Does the loop keep improving, or drift? In every round people vote on four answers of the "
        "live version to each of 15 new prompts, and the trained adapter goes live, without a "
        "gate. A round whose votes are all of one kind trains none.",
        rounds,
    ),
    Study("amount", "Number of votes", "How many votes does a rise take?", amount),
]
