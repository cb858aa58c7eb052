"""`python -m trainer generate`: answers from the shell, with or without an adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.data.chat import prompt_ids
from trainer.engine.loading import load_served
from trainer.engine.sampling import Sampling, derived_seed
from trainer.evaluation.versions import Question, Versions


def answer(
    prompts: Sequence[str],
    *,
    model: str,
    adapter: Path | None,
    system: str | None,
    sampling: Sampling,
    dtype: str,
    device: str,
    quantisation: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return the text of one answer to each prompt. Raises BadArtifact or TrainerError."""
    base = load_served(model, dtype=dtype, device=device, quantisation=quantisation)
    version = "the base" if adapter is None else adapter.name
    before = [] if system is None else [{"role": "system", "content": system}]
    questions = [
        Question(
            version,
            tuple(
                prompt_ids(
                    base.tokenizer, [*before, {"role": "user", "content": prompt}], template_kwargs
                )
            ),
            replace(sampling, seed=derived_seed(sampling.seed, index)),
        )
        for index, prompt in enumerate(prompts)
    ]
    answers = Versions(base, {version: adapter}).answers(questions)
    return [found.text for found in answers]
