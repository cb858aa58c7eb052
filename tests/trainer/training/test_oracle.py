"""Our steps compared with TRL's KTOTrainer on the same batches: loss, z₀, rewards,
log-probabilities and every LoRA gradient, over several steps.

TRL pairs each prompt with the completion of another row; our step gets the same pairs. Both use
fp32 on the same tiny random Llama with the same adapter weights, and both then take the same
gradient step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainer.data.batches import Step
from trainer.data.tokenise import Tokenised
from trainer.distributed.process_group import ProcessGroup
from trainer.forward.logprobs import Row, sequence_logprobs
from trainer.losses import Lambdas, loss_named
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import Lora, MasterWeights
from trainer.training.loss_scale import LossScale
from trainer.training.reference_cache import ReferenceCache, complete
from trainer.training.step import Budget, StepResult, StepRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:importlib._bootstrap"),
]

BETA = 0.4
RATE = 0.05
SCALE = 0.1
STEPS = 3
RELATIVE = 1e-5
#: Number of terms in the sums of a gradient element: the inner sizes of the products through the
#: tiny model and back (2 layers of 7 linear layers, 128 inputs at most, the head), and one per
#: token of the batch.
TERMS = 2 * 2 * 7 * 128 + 2 * 384
UNIT = torch.finfo(torch.float32).eps / 2


def rounding(tokens: int) -> float:
    """Return how far two orders of adding the same fp32 terms may differ, relative to the sum of
    their magnitudes.

    Each order is within 3 √n u of the exact sum with a probability of 97 % or more: Higham and
    Mary 2019, A New Approach to Probabilistic Rounding Error Analysis, Theorem 2.4 with λ = 3.
    """
    return 2 * 3 * math.sqrt(TERMS + tokens) * UNIT


@dataclass(frozen=True)
class Case:
    """Rows, labels and class weights of one comparison, and whether z₀ starts at its clamp."""

    rows: Sequence[Row]
    labels: Sequence[bool]
    lambdas: Lambdas
    clamped: bool

    @property
    def partners(self) -> tuple[int, ...]:
        """Return the completion of the previous row; the first row gets the last one's."""
        return tuple((number - 1) % len(self.rows) for number in range(len(self.rows)))


def rows(count: int, *, shared: int) -> list[Row]:
    """Return rows of various lengths whose prompts begin with the same `shared` tokens."""
    generator = torch.Generator().manual_seed(count)

    def draw(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (), generator=generator))
        return tuple(torch.randint(5, 300, (length,), generator=generator).tolist())

    return [((*range(100, 100 + shared), *draw(1, 9)), draw(1, 12)) for _ in range(count)]


BALANCED = [number % 2 == 0 for number in range(6)]
CASES = {
    "balanced, z0 clamped": Case(rows(6, shared=0), BALANCED, Lambdas(1, 1), clamped=True),
    "balanced, z0 above zero": Case(
        rows(6, shared=20), BALANCED, Lambdas(1.5, 0.75), clamped=False
    ),
    "19 to 1": Case(
        rows(20, shared=20), [n != 7 for n in range(20)], Lambdas(1, 14.25), clamped=False
    ),
}


class Oracle:
    """TRL's trainer with a PEFT adapter of known weights."""

    def __init__(
        self, tiny_dir: Path, output: Path, case: Case, loss: str, weights: dict[str, Tensor]
    ) -> None:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import KTOConfig, KTOTrainer

        self.case = case
        base = load_base(str(tiny_dir), dtype="float32", device="cpu")
        texts = [
            {"prompt": f"p{number}", "completion": f"c{number}", "label": label}
            for number, label in enumerate(case.labels)
        ]
        self.trainer = KTOTrainer(
            model=base.model,
            processing_class=base.tokenizer,
            train_dataset=Dataset.from_list(texts),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
            args=KTOConfig(
                output_dir=str(output),
                loss_type=loss,
                per_device_train_batch_size=len(case.labels),
                beta=BETA,
                desirable_weight=case.lambdas.desirable,
                undesirable_weight=case.lambdas.undesirable,
                report_to=[],
                use_cpu=True,
                bf16=False,
                activation_checkpointing=False,
                disable_tqdm=True,
            ),
        )
        self.named = {
            name.replace(".default.weight", ".weight"): parameter
            for name, parameter in self.trainer.model.named_parameters()
            if "lora_" in name
        }
        for name, parameter in self.named.items():
            parameter.data.copy_(weights[name])

    def step(self) -> tuple[float, dict[str, float]]:
        """Return loss and logged metrics; gradients are left on `named`."""
        case = self.case
        batch = self.trainer.data_collator(
            [
                {
                    "prompt_ids": list(prompt),
                    "completion_ids": list(completion),
                    "KL_completion_ids": list(case.rows[partner][1]),
                    "label": label,
                }
                for (prompt, completion), partner, label in zip(
                    case.rows, case.partners, case.labels, strict=True
                )
            ]
        )
        self.trainer.model.train()
        self.trainer.model.zero_grad()
        loss = self.trainer.compute_loss(self.trainer.model, batch)
        loss.backward()
        metrics = self.trainer._metrics["train"]
        return loss.item(), {key: values[-1] for key, values in metrics.items()}


class Ours:
    """Our step with an adapter of the same weights."""

    def __init__(self, tiny: LoadedBase, path: Path, case: Case, loss: str, budget: Budget) -> None:
        self.model = tiny.model
        self.case = case
        self.lora = Lora.attach(tiny.model, rank=4, alpha=8)
        generator = torch.Generator().manual_seed(11)
        self.weights = {
            name: torch.randn(parameter.shape, generator=generator) * SCALE
            for name, parameter in self.lora.parameters().items()
        }
        self.lora.load(self.weights)
        self.masters = MasterWeights(self.lora)
        self.runner = StepRunner(
            model=tiny.model,
            lora=self.lora,
            masters=self.masters,
            reference=ReferenceCache(path / "reference", fingerprint="tiny"),
            examples=[
                Tokenised(str(number), tuple(prompt), tuple(completion), label, 1.0, str(number))
                for number, ((prompt, completion), label) in enumerate(
                    zip(case.rows, case.labels, strict=True)
                )
            ],
            loss=loss_named(loss),
            lambdas=case.lambdas,
            max_length=64,
            budget=budget,
            process_group=ProcessGroup(),
            checkpointing=False,
            loss_scale=LossScale(torch.float32, torch.device("cpu")),
            check=lambda: None,
            on_less_memory=lambda message: None,
        )
        kept = case.partners if loss == "kto" else ()
        self.batch = Step(tuple(range(len(case.rows))), kept)
        own, mismatched = self.runner.rows(self.batch)
        with self.lora.off():
            complete(
                self.runner.reference,
                tiny.model,
                own + mismatched,
                token_budget=40,
                plan=path / "plan",
                on_progress=lambda done, total: None,
                process_group=ProcessGroup(),
            )

    def magnitudes(self) -> dict[str, float]:
        """Return, per master, the sum of the largest gradient elements of the ups and of the downs.

        The classes have opposite signs. The rounding errors of a gradient scale with the
        contribution of each class, not with the rest after cancellation.
        """
        found = dict.fromkeys(self.masters.tensors, 0.0)
        for label in (True, False):
            examples = [
                one if one.label is label else replace(one, weight=0.0)
                for one in self.runner.examples
            ]
            replace(self.runner, examples=examples).backward(self.batch, beta=BETA)
            for name, tensor in self.masters.tensors.items():
                assert tensor.grad is not None
                found[name] += tensor.grad.abs().max().item()
        return found

    def step(self) -> tuple[StepResult, list[float]]:
        """Return the step and the log-probabilities before it; leave gradients on the masters."""
        logprobs = sequence_logprobs(self.model, self.case.rows, 60).tolist()
        return self.runner.backward(self.batch, beta=BETA), logprobs


def mean(values: Sequence[float], labels: Sequence[bool], wanted: bool) -> float:
    chosen = [value for value, label in zip(values, labels, strict=True) if label is wanted]
    return sum(chosen) / len(chosen)


@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("budget", [Budget(1000, 1000), Budget(48, 0)], ids=["held", "two passes"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_steps_equal_trl(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path, case: Case, budget: Budget, loss: str
) -> None:
    ours = Ours(tiny, tmp_path, case, loss, Budget(budget.pack, budget.held))
    oracle = Oracle(tiny_dir, tmp_path / "trl", case, loss, ours.weights)
    assert ours.masters.tensors.keys() == oracle.named.keys()

    tokens = sum(len(prompt) + len(completion) for prompt, completion in case.rows)
    for number in range(STEPS):
        magnitudes = ours.magnitudes()
        found, logprobs = ours.step()
        expected, metrics = oracle.step()

        def close(value: float, other: float) -> None:
            # a sum of log-probabilities has the rounding error of its largest terms
            assert value == pytest.approx(other, rel=RELATIVE, abs=RELATIVE)

        close(found.loss, expected)
        if loss == "kto":
            assert number > 0 or (found.z0_unclamped < 0) == case.clamped
            close(found.z0, metrics["kl"])
        for wanted, name in ((True, "chosen"), (False, "rejected")):
            close(BETA * mean(found.rewards, case.labels, wanted), metrics[f"rewards/{name}"])
            close(mean(logprobs, case.labels, wanted), metrics[f"logps/{name}"])
        for name, parameter in oracle.named.items():
            assert parameter.grad is not None
            largest = parameter.grad.abs().max().item()
            assert largest > 1e-7, f"{name} is not tested in step {number}"
            torch.testing.assert_close(
                ours.masters.tensors[name].grad,
                parameter.grad,
                rtol=0,
                atol=rounding(tokens) * magnitudes[name],
            )
            ours.masters.tensors[name].sub_(RATE * ours.masters.tensors[name].grad)
            parameter.data.sub_(RATE * parameter.grad)
        ours.masters.publish()
