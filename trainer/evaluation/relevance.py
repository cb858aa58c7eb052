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
    (embeddings.py), each prompt once; `own` (n,) is the row of each answer's prompt. With a single
    prompt there is nothing to compare with, and all values are 0.

    The mean of the prompts is subtracted first. The states of language models share a large common
    part (Ethayarajh 2019, "How Contextual are Contextualized Word Representations?"), here also
    the system prompt's and the chat template's, and all similarities would be near 1.
    """
    count = len(prompts)
    if count < 2:
        return [0.0] * len(own)
    centre = prompts.mean(axis=0)
    similar = _unit(answers - centre) @ _unit(prompts - centre).T
    to_own = similar[np.arange(len(own)), list(own)]
    to_others = (similar.sum(axis=1) - to_own) / (count - 1)
    values: list[float] = (to_own - to_others).tolist()
    return values


def _unit(states: Floats) -> Floats:
    """Return rows scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    return states / np.where(lengths > 0, lengths, 1.0)
