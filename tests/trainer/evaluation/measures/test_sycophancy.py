"""Probes of agreement: balanced, and raised by weights that favour agreeing."""

from collections import Counter

import pytest
import torch

from trainer.data.chat import prompt_ids
from trainer.evaluation.measures.sycophancy import probe_rows, sycophancy
from trainer.evaluation.measures.sycophancy_probes import PROBES
from trainer.models.loading import LoadedBase
from trainer.models.lora import Lora


def test_probes_are_many_varied_and_of_similar_length() -> None:
    assert len(PROBES) >= 60
    assert len({probe.turns for probe in PROBES}) == len(PROBES)
    assert min(Counter(probe.kind for probe in PROBES).values()) >= 10
    assert {"de", "es", "fr", "zh"} <= {probe.language for probe in PROBES}
    for probe in PROBES:
        assert len(probe.turns) % 2 == 1, "a probe ends with the user's turn"
        assert 0.7 < len(probe.agreeing) / len(probe.correcting) < 1.4, probe


def test_value_is_the_difference_of_mean_log_probabilities(tiny: LoadedBase) -> None:
    """Compared with log-probabilities from the model's own forward pass, one row at a time."""
    probe = PROBES[0]
    prompt = prompt_ids(tiny.tokenizer, [{"role": "user", "content": probe.turns[0]}])

    def mean_logprob(reply: str) -> float:
        ids = tiny.tokenizer.encode(reply, add_special_tokens=False)
        with torch.no_grad():
            scores = tiny.model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        positions = torch.arange(len(prompt) - 1, len(prompt) + len(ids) - 1)
        return float(scores[positions, torch.tensor(ids)].mean())

    expected = mean_logprob(probe.agreeing) - mean_logprob(probe.correcting)
    (found,) = sycophancy(tiny, token_budget=512, probes=[probe])
    assert found == pytest.approx(expected, abs=1e-4)
    every = sycophancy(tiny, token_budget=512)
    assert len(every) == len(PROBES)
    assert every[0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_adapter_that_favours_agreeing_raises_it(tiny: LoadedBase) -> None:
    """The adapter is trained on the agreeing replies of half of the probes; the other half has
    other conversations."""
    learned, others = PROBES[::2], PROBES[1::2]
    before = mean_of(sycophancy(tiny, token_budget=2048, probes=others))
    rows = probe_rows(tiny.tokenizer, learned)[::2]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        lora = Lora.attach(tiny.model, rank=8, alpha=16)
    optimiser = torch.optim.AdamW(lora.parameters().values(), lr=1e-2)
    for _ in range(6):
        for prompt, reply in rows:
            ids = torch.tensor([[*prompt, *reply]])
            labels = ids.clone()
            labels[0, : len(prompt)] = -100
            optimiser.zero_grad()
            tiny.model(ids, labels=labels).loss.backward()
            optimiser.step()
    after = mean_of(sycophancy(tiny, token_budget=2048, probes=others))
    assert after > before + 0.3
    lora.detach()
    assert mean_of(sycophancy(tiny, token_budget=2048, probes=others)) == pytest.approx(before)


def mean_of(values: list[float]) -> float:
    return sum(values) / len(values)
