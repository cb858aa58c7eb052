"""How much closer an answer is to its own prompt than to the other prompts, in any language."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def relevance(prompts: Floats, answers: Floats, own: Sequence[int]) -> list[float]:
    """Return for each answer the cosine similarity of its state and its own prompt's, minus the
    mean similarity with the other prompts: at most 2, about 0 for an answer that would suit any
    prompt, below 0 for one that suits others better.

    `prompts` (m, hidden) and `answers` (n, hidden) are pooled states of the base model
    (evaluation/embeddings.py), each prompt once; `own` (n,) is the row of each answer's prompt.
    With a single prompt there is nothing to compare with, and all values are 0.

    The mean of the prompts is subtracted from each prompt, and that of these answers from each
    answer. The states of language models share a large common part (Ethayarajh 2019, "How
    Contextual are Contextualized Word Representations?"), here also the system prompt's and that
    of the style of all answers. On SmolLM2-135M an answer's own prompt is more similar than another
    one in 66 % of the pairs without that, and in 99 % with it.
    """
    count = len(prompts)
    if count < 2 or not own:
        return [0.0] * len(own)
    similar = _centred(answers) @ _centred(prompts).T
    to_own = similar[np.arange(len(own)), list(own)]
    to_others = (similar.sum(axis=1) - to_own) / (count - 1)
    values: list[float] = (to_own - to_others).tolist()
    return values


def _centred(states: Floats) -> Floats:
    """Return rows without their mean, scaled to length 1; one that equals the mean is zero."""
    rest = states - states.mean(axis=0)
    lengths = np.linalg.norm(rest, axis=1, keepdims=True)
    # what rounding leaves of equal rows has no direction
    tiny = 1e-9 * max(1.0, float(np.abs(states).max()))
    return np.where(lengths > tiny, rest / np.maximum(lengths, tiny), 0.0)
