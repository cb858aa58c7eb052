"""`python -m trainer generate`: answers from the shell, with or without an adapter."""

from collections.abc import Sequence
from pathlib import Path

from trainer.adapted import adapted
from trainer.artifact import verify_adapter
from trainer.chat import prompt_ids
from trainer.config import MAX_RANK
from trainer.generate import Sampling, generate
from trainer.model import load_base


def answer(
    prompts: Sequence[str],
    *,
    model: str,
    adapter: Path | None,
    system: str | None,
    sampling: Sampling,
    dtype: str,
    device: str,
) -> list[str]:
    """The text of one answer to each prompt. Raises BadArtifact or TrainerError."""
    base = load_base(model, dtype=dtype, device=device)
    if adapter is not None:
        verify_adapter(adapter, base_fingerprint=base.fingerprint, max_rank=MAX_RANK)
    before = [] if system is None else [{"role": "system", "content": system}]
    contexts = [
        prompt_ids(base.tokenizer, [*before, {"role": "user", "content": prompt}])
        for prompt in prompts
    ]
    with adapted(base, adapter):
        answers = generate(base.model, base.tokenizer, contexts, sampling)
    return [found.text for found in answers]
