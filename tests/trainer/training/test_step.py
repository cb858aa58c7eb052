"""A step does not depend on how its rows are packed, held or passed twice, and equals its loss
written with plain autograd."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer.forward.test_attention import plainly
from trainer.data.batches import Step
from trainer.data.tokenise import Tokenised
from trainer.distributed.process_group import ProcessGroup
from trainer.forward.logprobs import Row
from trainer.losses import TOKEN_CLAMP, Lambdas, bco, dpo, kto, loss_named, sft
from trainer.models.loading import LoadedBase
from trainer.models.lora import Lora, MasterWeights
from trainer.training.loss_scale import LossScale
from trainer.training.reference_cache import ReferenceCache, complete
from trainer.training.step import Budget, StepResult, StepRunner

pytestmark = pytest.mark.slow

SYSTEM = tuple(range(40, 60))
WEIGHTS = (1.0, 0.5, 2.0, 1.0, 1.0, 0.25)
LAMBDAS = Lambdas(1.2, 0.8)
#: three prompts with an up and a down each
EXAMPLES = [
    Tokenised(
        str(number),
        (*SYSTEM, 5 + number // 2, 9),
        tuple(range(60 + 7 * number, 63 + 8 * number)),
        number % 2 == 0,
        WEIGHTS[number],
        str(number // 2),
    )
    for number in range(6)
]
EXAMPLE_STEP = Step((3, 0, 1, 2, 5, 4), (1, 2, 4, 5, 0, 3))
PAIR_STEP = Step((2, 3, 0, 1, 4, 5))
BETA = 0.5


class Bench:
    """A runner on the tiny model with an adapter that changes its output."""

    def __init__(
        self,
        tiny: LoadedBase,
        path: Path,
        loss: str,
        budget: Budget,
        *,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        self.model = tiny.model
        self.lora = Lora.attach(tiny.model, rank=4, alpha=8, dropout=dropout)
        generator = torch.Generator().manual_seed(5)
        for parameter in self.lora.parameters().values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        self.masters = MasterWeights(self.lora)
        self.checks = 0
        self.runner = StepRunner(
            model=tiny.model,
            lora=self.lora,
            masters=self.masters,
            reference=ReferenceCache(path, fingerprint="tiny"),
            examples=EXAMPLES,
            loss=loss_named(loss),
            lambdas=LAMBDAS,
            max_length=64,
            budget=budget,
            process_group=ProcessGroup(),
            checkpointing=checkpointing,
            loss_scale=LossScale(torch.float32, torch.device("cpu")),
            check=self._count,
            on_less_memory=lambda message: None,
        )
        rows = [
            row
            for step in (EXAMPLE_STEP, PAIR_STEP)
            for part in self.runner.rows(step)
            for row in part
        ]
        with self.lora.off():
            complete(
                self.runner.reference,
                tiny.model,
                rows,
                token_budget=100,
                plan=path / "plan",
                on_progress=lambda done, total: None,
                process_group=ProcessGroup(),
            )

    def _count(self) -> None:
        self.checks += 1

    def backward(self, step: Step, **given: float) -> tuple[StepResult, list[Tensor]]:
        result = self.runner.backward(step, beta=BETA, **given)
        return result, [gradient.clone() for gradient in self.masters.gradients()]


def step_of(loss: str) -> Step:
    return PAIR_STEP if loss == "dpo" else EXAMPLE_STEP


@pytest.mark.parametrize("loss", ["kto", "kto_clamped", "apo_zero_unpaired", "bco", "sft", "dpo"])
def test_packs_and_passes_change_nothing(tiny: LoadedBase, tmp_path: Path, loss: str) -> None:
    bench = Bench(tiny, tmp_path / "whole", loss, Budget(10_000, 10_000))
    expected, gradients = bench.backward(step_of(loss), mean_reward=0.3)
    bench.lora.detach()
    for number, budget in enumerate([Budget(60, 10_000), Budget(60, 0), Budget(1, 0)]):
        other = Bench(tiny, tmp_path / str(number), loss, budget)
        found, slopes = other.backward(step_of(loss), mean_reward=0.3)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.z0_unclamped == pytest.approx(expected.z0_unclamped, abs=1e-4)
        assert found.rewards == pytest.approx(expected.rewards, abs=1e-4)
        assert found.tokens == expected.tokens
        for slope, gradient in zip(slopes, gradients, strict=True):
            torch.testing.assert_close(slope, gradient, rtol=1e-4, atol=1e-6)
        measured = other.runner.measure(step_of(loss), beta=BETA, mean_reward=0.3)
        assert measured.loss == pytest.approx(expected.loss, rel=1e-5)
        other.lora.detach()


def plain_loss(bench: Bench, loss: str, mean_reward: float) -> Tensor:
    """Return the step's loss from whole rows and plain autograd, as the papers define it."""
    step = step_of(loss)
    chosen = [EXAMPLES[index] for index in step.examples]
    rows: list[Row] = [(example.prompt, example.completion) for example in chosen]
    labels = torch.tensor([example.label for example in chosen])
    weights = torch.tensor([example.weight for example in chosen])
    clamp = TOKEN_CLAMP if loss == "kto_clamped" else None
    rewards = plain_rewards(bench, rows, clamp)
    if loss == "dpo":
        pair_weights = torch.minimum(weights[0::2], weights[1::2])
        return (dpo(rewards[0::2], rewards[1::2], BETA) * pair_weights).mean()
    if loss == "sft":
        logprobs = torch.stack([plainly(bench.model, row) for row in rows])
        return (sft(logprobs, torch.tensor([len(y) for _, y in rows])) * weights).mean()
    if loss == "bco":
        return (bco(rewards, labels, torch.tensor(mean_reward), BETA, LAMBDAS) * weights).mean()
    mismatched: list[Row] = [
        (EXAMPLES[index].prompt, EXAMPLES[other].completion)
        for index, other in zip(step.examples, step.mismatched, strict=True)
    ]
    z0 = plain_rewards(bench, mismatched, clamp).detach().mean().clamp(min=0)
    if loss == "apo_zero_unpaired":
        z0 = torch.zeros(())
    return (kto(rewards, labels, z0, BETA, LAMBDAS) * weights).mean()


def plain_rewards(bench: Bench, rows: Sequence[Row], clamp: tuple[float, float] | None) -> Tensor:
    found = []
    for prompt, completion in rows:
        ratios = []
        for number in range(len(completion)):
            row = ((*prompt, *completion[:number]), completion[number : number + 1])
            policy = plainly(bench.model, row)
            with torch.no_grad(), bench.lora.off():
                reference = plainly(bench.model, row)
            ratios.append(policy - reference)
        ratio = torch.stack(ratios)
        found.append((ratio if clamp is None else ratio.clamp(*clamp)).sum())
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kto", "kto_clamped", "apo_zero_unpaired", "bco", "sft", "dpo"])
def test_step_equals_its_loss_by_definition(tiny: LoadedBase, tmp_path: Path, loss: str) -> None:
    bench = Bench(tiny, tmp_path / "reference", loss, Budget(70, 10_000))
    found, gradients = bench.backward(step_of(loss), mean_reward=0.3)
    bench.model.zero_grad()
    expected = plain_loss(bench, loss, 0.3)
    expected.backward()
    assert found.loss == pytest.approx(expected.item(), rel=1e-4)
    for gradient, parameter in zip(gradients, bench.lora.parameters().values(), strict=True):
        assert parameter.grad is not None
        largest = parameter.grad.abs().max().item()
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["kto", "kto_clamped", "dpo"])
def test_sft_weight_adds_the_sft_loss_of_the_ups(
    tiny: LoadedBase, tmp_path: Path, loss: str
) -> None:
    bench = Bench(tiny, tmp_path / "reference", loss, Budget(70, 10_000))
    bench.runner = replace(bench.runner, sft_weight=0.4)
    found, gradients = bench.backward(step_of(loss))
    bench.model.zero_grad()
    expected = plain_loss(bench, loss, 0.0) + 0.4 * plain_sft_of_ups(bench, loss)
    expected.backward()
    assert found.loss == pytest.approx(expected.item(), rel=1e-4)
    for gradient, parameter in zip(gradients, bench.lora.parameters().values(), strict=True):
        assert parameter.grad is not None
        largest = parameter.grad.abs().max().item()
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4 * largest)


def plain_sft_of_ups(bench: Bench, loss: str) -> Tensor:
    """Return the weighted SFT loss of the step's desirable examples, over its examples or pairs."""
    chosen = [EXAMPLES[index] for index in step_of(loss).examples]
    weights = [example.weight for example in chosen]
    if loss == "dpo":
        weights = [min(pair) for pair in zip(weights[0::2], weights[1::2], strict=True)]
        chosen = chosen[0::2]
    terms = [
        weight * -plainly(bench.model, (e.prompt, e.completion)) / len(e.completion)
        if e.label
        else torch.zeros(())
        for e, weight in zip(chosen, weights, strict=True)
    ]
    return torch.stack(terms).mean()


def test_dropout_applies_to_the_examples_and_not_to_z0(tiny: LoadedBase, tmp_path: Path) -> None:
    bench = Bench(tiny, tmp_path / "reference", "kto", Budget(100, 10_000), dropout=0.5)
    results = [bench.backward(EXAMPLE_STEP)[0] for _ in range(2)]
    assert results[0].z0_unclamped == results[1].z0_unclamped
    assert results[0].rewards != results[1].rewards


def test_steps_can_be_interrupted_between_packs(tiny: LoadedBase, tmp_path: Path) -> None:
    bench = Bench(tiny, tmp_path / "reference", "kto", Budget(1, 0))
    bench.backward(EXAMPLE_STEP)
    assert bench.checks == 12  # z₀ and the gradient of six packs


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_activation_checkpointing_changes_no_result(
    tiny: LoadedBase, tmp_path: Path, dropout: float
) -> None:
    def stepped(checkpointing: bool) -> tuple[StepResult, list[Tensor]]:
        bench = Bench(
            tiny,
            tmp_path / str(checkpointing),
            "kto",
            Budget(100, 10_000),
            dropout=dropout,
            checkpointing=checkpointing,
        )
        torch.manual_seed(5)
        try:
            return bench.backward(EXAMPLE_STEP)
        finally:
            bench.lora.detach()

    (expected, gradients), (found, slopes) = stepped(False), stepped(True)
    assert found == expected
    for slope, gradient in zip(slopes, gradients, strict=True):
        assert torch.equal(slope, gradient)


def test_activation_checkpointing_keeps_less_memory(tiny: LoadedBase, tmp_path: Path) -> None:
    def kept(checkpointing: bool) -> int:
        bench = Bench(
            tiny, tmp_path / "kept", "kto", Budget(100, 10_000), checkpointing=checkpointing
        )
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            bench.backward(EXAMPLE_STEP)
        bench.lora.detach()
        return total

    assert kept(True) < kept(False) / 4


@pytest.mark.parametrize("loss", ["kto", "kto_clamped", "bco", "dpo"])
def test_first_step_needs_no_reference(tiny: LoadedBase, tmp_path: Path, loss: str) -> None:
    bench = Bench(tiny, tmp_path / "known", loss, Budget(60, 10_000))
    for name, parameter in bench.lora.parameters().items():
        if ".lora_B." in name:  # B is zero at the start of every run
            parameter.data.zero_()
    expected, gradients = bench.backward(step_of(loss))
    empty = ReferenceCache(tmp_path / "empty", fingerprint="tiny")
    runner = replace(bench.runner, reference=empty)
    found = runner.backward(step_of(loss), beta=BETA, fresh=True)
    assert found.rewards == (0,) * 6
    assert found.z0 == found.z0_unclamped == 0
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    for slope, gradient in zip(bench.masters.gradients(), gradients, strict=True):
        torch.testing.assert_close(slope, gradient, rtol=1e-4, atol=1e-6)
    own, mismatched = runner.rows(step_of(loss))
    for row in own:
        torch.testing.assert_close(empty[row], bench.runner.reference[row], rtol=1e-5, atol=1e-5)
    assert not any(row in empty for row in mismatched)
