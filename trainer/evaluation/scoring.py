"""What a version's log-probabilities show: of the test examples, of its own answers, of neutral
text and of replies that agree or correct."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainer.chats.settings import ChatSettings
from trainer.data.examples import Example
from trainer.data.tokenise import Tokenised, tokenise_for
from trainer.errors import RunFailed
from trainer.evaluation.fixed_texts import FixedTexts
from trainer.evaluation.generate import Answer
from trainer.evaluation.kl_probe import kl_of
from trainer.evaluation.sampling import Version
from trainer.forward.logprobs import Row, sequence_logprobs
from trainer.models.loading import LoadedBase
from trainer.models.lora import Lora

TOKEN_BUDGET = 2048
_MAX_LENGTH = 4096


@dataclass(frozen=True)
class ScoredExamples:
    """The test examples as token ids, and the bare base's log-probability of each, in nats."""

    examples: Sequence[Tokenised]
    rows: Sequence[Row]
    reference: Sequence[float]

    @classmethod
    def of(
        cls, base: LoadedBase, examples: Sequence[Example], chat: ChatSettings | None = None
    ) -> "ScoredExamples":
        """Tokenise and score; examples that do not fit are left out. Raises Refused."""
        fitting = tokenise_for(base, examples, max_length=_MAX_LENGTH, chat=chat).examples
        rows: list[Row] = [(example.prompt, example.completion) for example in fitting]
        return cls(fitting, rows, _logprobs(base, rows))

    @property
    def prompts(self) -> list[str]:
        """Return a stable hash of each example's prompt, equal for examples of one prompt."""
        return [_hash(example.prompt) for example in self.examples]


@dataclass(frozen=True)
class Scores:
    """One version's values: `rewards` in nats, one per test example; `kl` and `neutral` in nats per
    token, one per KL prompt and passage; `sycophancy` in nats per token, one per probe."""

    rewards: tuple[float, ...]
    kl: tuple[float, ...]
    neutral: tuple[float, ...]
    sycophancy: tuple[float, ...]


def scores_of(
    base: LoadedBase,
    lora: Lora | None,
    *,
    name: str,
    version: Version,
    test: ScoredExamples,
    fixed: FixedTexts,
    kl_answers: Sequence[Answer],
    kl_prompts: int,
    check: Callable[[], None],
) -> Scores:
    """Measure `version`: the base with the attached adapter, or bare where `lora` is None.

    `check` is called before each part; what it raises ends the work. Raises RunFailed, naming the
    version, when a value is not finite.
    """
    check()
    found = test.reference if lora is None else _logprobs(base, test.rows)
    rewards = tuple(score - known for score, known in zip(found, test.reference, strict=True))
    check()
    if lora is None:
        kl: tuple[float, ...] = (0.0,) * kl_prompts
    else:
        kl = kl_of(base.model, lora, kl_answers).answers if kl_answers else ()
    check()
    texts = fixed.scores(version.weights)
    if not (texts.finite and all(map(math.isfinite, [*rewards, *kl]))):
        raise RunFailed(
            f"{name} gives log-probabilities that are NaN or infinite",
            advice="its weights are damaged or exploded: do not release it, train again",
        )
    return Scores(rewards, kl, texts.neutral, texts.sycophancy)


def _logprobs(base: LoadedBase, rows: Sequence[Row]) -> list[float]:
    """Return log π(y|x) of each row in nats."""
    return sequence_logprobs(base.model, rows, TOKEN_BUDGET).tolist() if rows else []


def _hash(prompt: Sequence[int]) -> str:
    return hashlib.sha256(",".join(map(str, prompt)).encode()).hexdigest()[:16]
