"""Our losses compared with TRL's own on the same numbers: values and gradients.

TRL computes its losses inside its trainers, from a model's output. Here the unchanged code of its
trainers runs on a replacement for the model that returns chosen log-probabilities, so that no
weights, tokenizer or padding are involved. TRL 1.16 has no BCO for unpaired examples; its DPO
trainer has the pair loss of BCO, where δ is 0.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.losses import (
    ExampleLoss,
    Lambdas,
    bco,
    dpo,
    kl_reference_point,
    loss_named,
    sft,
    summed_rewards,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:importlib._bootstrap"),
]

BETA = 0.3
WEIGHTS = Lambdas(1.5, 0.75)
PROMPT, ANSWER = 3, 5  # tokens of every row
GENERATOR = torch.Generator().manual_seed(7)


def numbers(*shape: int) -> Tensor:
    return -3 * torch.rand(shape, generator=GENERATOR, dtype=torch.float64)


class Speaker:
    """Replaces a model: returns the log-probability of each requested token in order."""

    training = True

    def __init__(self, *answers: Tensor) -> None:
        self.answers = list(answers)

    def __call__(self, **given: Any) -> SimpleNamespace:
        answer = self.answers.pop(0)
        nothing = torch.zeros(len(answer), PROMPT - 1, dtype=answer.dtype)
        logprobs = torch.cat([nothing, answer], dim=1)
        unread = torch.zeros_like(logprobs)
        return SimpleNamespace(
            log_probs=logprobs, entropy=unread, mean_logits=unread, is_top1=unread.bool()
        )


def trainer_with(**settings: Any) -> SimpleNamespace:
    """Return the attributes that TRL's loss functions read from their trainer, on one device."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        gather_for_metrics=lambda tensor: tensor,
        gather=lambda tensor: tensor,
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator,
        beta=BETA,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )


def batch_of(rows: int) -> dict[str, Tensor]:
    ids = torch.ones(rows, PROMPT + ANSWER, dtype=torch.long)
    mask = ids.clone()
    mask[:, :PROMPT] = 0
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}


@pytest.mark.parametrize("shift", [2.0, -2.0], ids=["z0-above-zero", "z0-clamped"])
@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_example_losses_equal_trl(name: str, shift: float) -> None:
    from trl import KTOTrainer

    labels = torch.tensor([True, False, False, True, False])
    reference = numbers(5) * ANSWER
    pairs = numbers(5, ANSWER)
    reference_of_pairs = pairs.sum(1) - shift + numbers(5) / 10
    theirs = numbers(5, ANSWER).requires_grad_()
    ours = theirs.detach().clone().requires_grad_()

    trainer = trainer_with(
        loss_type=name,
        calculate_KL=name == "kto",
        desirable_weight=WEIGHTS.desirable,
        undesirable_weight=WEIGHTS.undesirable,
    )
    trainer._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(
        trainer, model, batch
    )
    kl = {f"KL_{key}": value for key, value in batch_of(5).items()}
    inputs = {
        **batch_of(5),
        **(kl if name == "kto" else {}),
        "label": labels,
        "ref_logps": reference,
        "ref_KL_logps": reference_of_pairs,
    }
    model = Speaker(pairs, theirs) if name == "kto" else Speaker(theirs)
    expected = KTOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    expected.backward()

    loss = loss_named(name)
    assert isinstance(loss, ExampleLoss)
    z0, unclamped = kl_reference_point(pairs.sum(1) - reference_of_pairs)
    assert (unclamped > 0) == (shift > 0)
    owners = torch.arange(5).repeat_interleave(ANSWER)
    rewards = summed_rewards(ours.flatten(), owners, examples=5) - reference
    found = loss.function(rewards, labels, z0, BETA, WEIGHTS).mean()
    found.backward()

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-15)
    assert ours.grad is not None
    assert ours.grad.abs().max() > 1e-3
    if name == "kto":
        assert trainer._metrics["train"]["kl"] == [pytest.approx(z0.item())]


@pytest.mark.parametrize("name", ["sigmoid", "bco_pair", "sft"])
def test_pair_losses_equal_trl(name: str) -> None:
    from trl import DPOTrainer

    ups, downs = numbers(4) * ANSWER, numbers(4) * ANSWER  # of the reference model
    theirs = numbers(8, ANSWER).requires_grad_()  # four ups, then their downs
    ours = theirs.detach().clone().requires_grad_()

    trainer = trainer_with(
        loss_types=[name],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
    )
    inputs = {**batch_of(8), "ref_chosen_logps": ups, "ref_rejected_logps": downs}
    expected = DPOTrainer._compute_loss(trainer, Speaker(theirs), inputs, return_outputs=False)
    expected.backward()

    sums = ours.sum(1)
    up, down = sums[:4] - ups, sums[4:] - downs
    if name == "sigmoid":
        found = dpo(up, down, BETA).mean()
    elif name == "sft":
        found = sft(sums[:4], torch.full((4,), ANSWER)).mean()
    else:
        labels = torch.tensor([True] * 4 + [False] * 4)
        delta = torch.tensor(0.0, dtype=torch.float64)
        # the mean over pairs of two losses each
        found = bco(torch.cat([up, down]), labels, delta, BETA, Lambdas(1.0, 1.0)).sum() / 4
    found.backward()

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-15)
    assert ours.grad is not None
    assert ours.grad.abs().max() > 1e-3
