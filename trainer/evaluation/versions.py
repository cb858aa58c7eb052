"""A base model and its adapters that answer in one mixed batch, with the engine's code.

The gate and `python -m trainer generate` sample here, so that what they judge is what the engine
would serve.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.backends import serving_decoder
from trainer.data.chat import eos_ids
from trainer.engine.adapters import read_adapter
from trainer.engine.batch import Batch, Row, context_length
from trainer.engine.cache_limits import cache_limits
from trainer.engine.prefix_cache import PrefixCache
from trainer.engine.sampling import Sampling
from trainer.errors import RunFailed
from trainer.evaluation.generate import Answer, answer_of, refuse_oversized, run_rows
from trainer.models.loading import LoadedBase

#: Rows that run at once. The decoder multiplies eight rows at a time: with 16 of them nearly
#: nothing is left to gain, and a prompt that waits can reuse what an earlier one has read.
DECODER_ROWS = 16
TRANSFORMERS_ROWS = 32


@dataclass(frozen=True)
class Question:
    """One answer that is asked for: `version` names one of the versions, `sampling.seed` seeds the
    answer's own random stream."""

    version: str
    prompt: tuple[int, ...]
    sampling: Sampling


class Versions:
    """The versions of one base by name: adapter directories, or None for the base itself.

    What a question gets depends on its version, prompt and sampling, and on nothing else that is
    asked at the same time:

    - Llama, Mistral and Qwen 2 on a CPU run through the compiled decoder (extra `cpu`), where a
      row's scores are the same bit for bit alone and in any mixture. So are seeded answers.
    - Elsewhere transformers' products are used. Their rounding depends on how many rows and
      adapters run together, in the last bits of the scores (4e-6 in float32 on the tests' model).
      A seeded answer differs only where a draw falls within that distance of the border between
      two tokens.
    """

    def __init__(self, base: LoadedBase, paths: Mapping[str, Path | None]) -> None:
        """Take the weights out of `base.model`, which nothing else can use afterwards;
        engine.loading.load_served loads it in the type that decodes fastest.

        Raises BadArtifact for an adapter that is damaged or does not fit the base.
        """
        self._base = base
        self._context = context_length(base.model)
        self._eos = eos_ids(base.model, base.tokenizer)
        self._decoder = serving_decoder(base.model)
        self._slots = {
            name: 0 if path is None else self._attached(path) for name, path in paths.items()
        }

    def answers(
        self,
        questions: Sequence[Question],
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_step: Callable[[], None] | None = None,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Return the answer to each question, in their order.

        `on_progress` is called with (done, total) as answers finish, `on_answer` with a question's
        number and its answer, `on_step` before every pass through the model; what they raise ends
        the run. Raises Refused for prompts that do not fit the context, RunFailed naming the
        versions whose scores are NaN or infinite.
        """
        refuse_oversized([question.prompt for question in questions], self._context)
        rows = [self._row(question) for question in questions]
        numbers = {row: number for number, row in enumerate(rows)}

        def finished(row: Row) -> None:
            if on_answer is not None:
                on_answer(numbers[row], answer_of(row))

        self._run(rows, on_progress, on_step, finished)
        failed = {
            question.version: question
            for question, row in zip(questions, rows, strict=True)
            if row.finish_reason == "error"
        }
        if failed:
            raise self._broken(failed)
        return [answer_of(row) for row in rows]

    def _attached(self, path: Path) -> int:
        _, weights = read_adapter(path, self._base, self._decoder.shapes)
        return self._decoder.attach(weights)

    def _row(self, question: Question) -> Row:
        room = self._context - len(question.prompt)
        sampling = question.sampling
        return Row.new(
            question.prompt,
            replace(sampling, max_tokens=min(sampling.max_tokens, room)),
            tokenizer=self._base.tokenizer,
            eos=self._eos,
            slot=self._slots[question.version],
        )

    def _run(
        self,
        rows: Sequence[Row],
        on_progress: Callable[[int, int], None] | None = None,
        on_step: Callable[[], None] | None = None,
        on_finished: Callable[[Row], None] | None = None,
    ) -> None:
        same_bits = self._decoder.batch_invariant
        run_rows(
            # a cached prefix changes no bits only if the decoder is batch invariant
            Batch(self._base.model, self._decoder, self._prefixes() if same_bits else None),
            _in_order(rows),
            batch_size=DECODER_ROWS if same_bits else TRANSFORMERS_ROWS,
            on_progress=on_progress,
            on_step=on_step,
            on_finished=on_finished,
        )

    def _prefixes(self) -> PrefixCache:
        return PrefixCache(cache_limits(self._base.model).prefixes)

    def _broken(self, failed: Mapping[str, Question]) -> RunFailed:
        """Return an error with the versions that fail alone: through transformers, NaN of one
        adapter reaches the rows of all others in its batch."""
        alone = {name: self._row(question) for name, question in failed.items()}
        for row in alone.values():
            self._run([row])
        names = [name for name, row in alone.items() if row.finish_reason == "error"] or failed
        return RunFailed(
            f"{' and '.join(names)} gives scores that are NaN or infinite",
            advice="its weights are damaged or exploded: do not release it, train again",
        )


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows in the order to run them: long prompts first, so that none is left to run alone;
    further answers to a prompt after all first ones, when the prompt is cached."""
    asked: Counter[tuple[int, tuple[int, ...]]] = Counter()
    order = []
    for row in rows:
        order.append((asked[row.slot, row.prompt], -len(row.prompt), row))
        asked[row.slot, row.prompt] += 1
    return [row for *_, row in sorted(order, key=lambda entry: entry[:2])]
