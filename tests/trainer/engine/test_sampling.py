"""Sampling a token: the requested distribution, and one random stream per row."""

from collections import Counter

import pytest
import torch
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trainer.engine.sampling import (
    NO_TOKEN,
    Earlier,
    Sampler,
    Sampling,
    choose,
    derived_seed,
)

pytestmark = pytest.mark.slow

DRAWS = 2000
ZERO = Earlier(prompt=[0])


def draws(logits: torch.Tensor, sampling: Sampling, count: int = DRAWS) -> Counter[int]:
    sampler = Sampler(sampling)
    return Counter(choose(logits[None], [sampler], [ZERO])[0] for _ in range(count))


def oracle(logits: torch.Tensor, sampling: Sampling, seen: list[int]) -> torch.Tensor:
    """Apply transformers' own logits processors, in its order."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    scores = steps(torch.tensor([seen]), logits[None].clone())
    return torch.softmax(scores[0], dim=-1)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=1.0, seed=1),
        Sampling(temperature=0.5, top_p=0.8, seed=2),
        Sampling(temperature=1.5, top_p=1.0, top_k=5, seed=3),
        Sampling(temperature=1.0, top_p=0.7, top_k=6, seed=4),
        Sampling(temperature=0.9, top_p=0.9, repetition_penalty=1.8, seed=5),
    ],
    ids=["all", "top-p", "top-k", "both", "penalty"],
)
@pytest.mark.parametrize("vocabulary", [12, 700], ids=["small", "larger than the candidates"])
def test_draws_follow_the_distribution_of_transformers(sampling: Sampling, vocabulary: int) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(7)) * 1.5
    expected = oracle(logits, sampling, seen=[0])
    found = draws(logits, sampling)
    assert all(expected[token] > 0 for token in found), "a token outside the nucleus was drawn"
    shares = torch.tensor([found[token] / DRAWS for token in range(vocabulary)])
    common = expected > 0.01
    # five standard deviations of a binomial, for each common token and for the rest together
    rare = torch.stack([expected[~common].sum(), shares[~common].sum()])
    wanted = torch.cat([expected[common], rare[:1]])
    got = torch.cat([shares[common], rare[1:]])
    assert bool(((got - wanted).abs() <= 5 * (wanted * (1 - wanted) / DRAWS).sqrt()).all())


@pytest.mark.parametrize("top_k", [13, 10**400], ids=["one more", "beyond any tensor"])
@pytest.mark.parametrize("top_p", [0.7, 1.0])
def test_top_k_beyond_the_vocabulary_is_none(top_k: int, top_p: float) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(7))
    free, limited = (
        Sampling(temperature=1.0, top_p=top_p, top_k=limit, seed=3) for limit in (12, top_k)
    )
    assert draws(logits, limited, 200) == draws(logits, free, 200)


@pytest.mark.long
@pytest.mark.parametrize("vocabulary", [2000, 9000])
def test_nearly_uniform_logits_draw_beyond_the_candidates(vocabulary: int) -> None:
    # nearly uniform: 90 % of the mass is outside the candidates considered first, or at all
    found = draws(-1e-6 * torch.arange(vocabulary), Sampling(temperature=1.0, top_p=0.9, seed=1))
    assert len(found) > 900
    assert 0.89 < max(found) / vocabulary < 0.9


@pytest.mark.long
def test_nucleus_is_a_share_of_all_tokens_not_of_the_candidates() -> None:
    # 240 of 300 equal tokens have a mass of 79.9 %; of the 256 candidates alone it would be 205
    found = draws(torch.zeros(300), Sampling(temperature=1.0, top_p=0.799, seed=1), 4 * DRAWS)
    assert len(found) == 240


def test_temperature_zero_takes_the_most_likely_token_without_a_draw() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.9]])
    assert choose(logits, [Sampler(Sampling(temperature=0))], [ZERO]) == [1]


def test_repetition_penalty_changes_the_most_likely_token() -> None:
    logits = torch.tensor([[3.0, 2.9, -1.0]])
    greedy = Sampler(Sampling(temperature=0, repetition_penalty=2.0))
    assert choose(logits, [greedy], [ZERO]) == [1]
    # a penalty also makes negative logits more negative
    assert choose(torch.tensor([[-1.0, -1.5]]), [greedy], [ZERO]) == [1]


def test_presence_and_frequency_penalties_count_what_was_written() -> None:
    logits = torch.tensor([[3.0, 2.5, -1.0]])
    before = [Earlier(prompt=[0, 0, 0], written=[1, 0])]

    def chosen(**penalties: float) -> int:
        return choose(logits, [Sampler(Sampling(temperature=0, **penalties))], before)[0]

    assert chosen(presence_penalty=2.0) == 0  # both were written once
    assert chosen(frequency_penalty=0.3) == 0
    before = [Earlier(prompt=[1, 1, 1], written=[0, 0])]
    assert chosen(presence_penalty=0.4) == 0
    assert chosen(presence_penalty=0.6) == 1
    assert chosen(frequency_penalty=0.2) == 0
    assert chosen(frequency_penalty=0.3) == 1  # twice 0.3
    assert chosen(presence_penalty=-1.0) == 0
    assert logits.tolist() == [[3.0, 2.5, -1.0]]


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_penalties_have_bounds(penalty: str) -> None:
    for wrong in (2.1, -2.1, float("nan")):
        with pytest.raises(ValueError, match="from -2 to 2"):
            Sampling(**{penalty: wrong})


def test_row_draws_the_same_tokens_in_any_batch() -> None:
    logits = torch.randn(3, 400, generator=torch.Generator().manual_seed(1))
    hot = Sampling(temperature=1.0, top_p=0.95, seed=11)
    cold, pure = Sampling(temperature=0), Sampling(temperature=1.0, top_p=1.0, seed=12)
    alone = [choose(logits[:1], [sampler], [ZERO]) for sampler in [Sampler(hot)] for _ in range(5)]
    sampler, others = Sampler(hot), [Sampler(cold), Sampler(pure)]
    beside = [choose(logits, [sampler, *others], [ZERO] * 3)[:1] for _ in range(5)]
    assert beside == alone


def test_logits_that_are_not_finite_give_no_token() -> None:
    logits = torch.zeros(3, 300)
    logits[1, 5] = torch.nan
    logits[2, 5] = torch.inf
    samplers = [Sampler(Sampling(seed=1)) for _ in range(3)]
    chosen = choose(logits, samplers, [ZERO] * 3)
    assert chosen[0] >= 0
    assert chosen[1:] == [NO_TOKEN, NO_TOKEN]


def test_derived_seeds_differ_and_are_reproducible() -> None:
    seeds = {derived_seed(seed, index) for seed in range(20) for index in range(20)}
    assert len(seeds) == 400
    assert derived_seed(3, 4) == derived_seed(3, 4)
    assert derived_seed(None, 4) is None


def test_invalid_parameters_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"max_tokens.*temperature.*top_p"):
        Sampling(max_tokens=0, temperature=-1, top_p=0)
