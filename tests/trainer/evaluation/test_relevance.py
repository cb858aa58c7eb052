"""Relevance compares an answer with its own prompt and with the others."""

import numpy as np
import pytest

from trainer.evaluation.relevance import relevance

#: Four prompts that share a large common part.
PROMPTS = np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9]], float) + 100


def test_answer_near_its_own_prompt_scores_high_and_near_another_low() -> None:
    own = relevance(PROMPTS, PROMPTS + 1, [0, 1, 2, 3])
    # all prompts are at the same angle: cos is 1 with the own, -1/3 with the three others
    assert own == pytest.approx([4 / 3] * 4, abs=0.1)
    other = relevance(PROMPTS, PROMPTS, [1, 2, 3, 0])
    assert all(value < 0 for value in other)


def test_generic_answer_scores_zero() -> None:
    generic = np.repeat(PROMPTS.mean(axis=0, keepdims=True), 4, axis=0)
    assert relevance(PROMPTS, generic, [0, 1, 2, 3]) == pytest.approx([0] * 4)
    # one answer to everything: what it gains with one prompt it loses with the others
    constant = np.repeat(PROMPTS[:1] + 2, 4, axis=0)
    assert sum(relevance(PROMPTS, constant, [0, 1, 2, 3])) == pytest.approx(0, abs=1e-9)


def test_single_prompt_has_no_others() -> None:
    assert relevance(PROMPTS[:1], PROMPTS[:2], [0, 0]) == [0, 0]
    assert relevance(PROMPTS, PROMPTS[:0], []) == []
