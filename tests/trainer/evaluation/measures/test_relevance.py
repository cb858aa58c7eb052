"""Relevance compares an answer with its own prompt and with the others."""

from pathlib import Path

import numpy as np
import pytest

from trainer.data.chat import prompt_ids
from trainer.evaluation.embeddings import pooled_states
from trainer.evaluation.measures.relevance import relevance
from trainer.models.loading import load_base, prepare

MODELS = Path(__file__).resolve().parents[4] / "var" / "models"
#: Four prompts that share a large common part.
PROMPTS = np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9]], float) + 100
#: The style that all answers have.
STYLE = np.array([-50.0, 20.0, 0.0, 70.0])


def test_answer_near_its_own_prompt_scores_high_and_near_another_low() -> None:
    own = relevance(PROMPTS, PROMPTS + STYLE, [0, 1, 2, 3])
    # without the common part the cosine is 1 with the own prompt and -1/3 with the three others
    assert own == pytest.approx([4 / 3] * 4)
    other = relevance(PROMPTS, PROMPTS + STYLE, [1, 2, 3, 0])
    assert other == pytest.approx([-1 / 3 - 1 / 9] * 4)


def test_same_answer_to_every_prompt_scores_zero() -> None:
    same = np.repeat(PROMPTS[:1] + STYLE, 4, axis=0)
    assert relevance(PROMPTS, same, [0, 1, 2, 3]) == [0, 0, 0, 0]


def test_generic_answers_score_about_zero_on_average() -> None:
    noise = np.random.default_rng(1).normal(size=(400, 4))
    found = relevance(PROMPTS, noise + STYLE, [number % 4 for number in range(400)])
    assert sum(found) / len(found) == pytest.approx(0, abs=0.1)


def test_single_prompt_has_no_others() -> None:
    assert relevance(PROMPTS[:1], PROMPTS[:2], [0, 0]) == [0, 0]
    assert relevance(PROMPTS, PROMPTS[:0], []) == []


PAIRS = (
    ("How do I bake bread?", "Mix flour, water, salt and yeast, let the dough rise and bake it."),
    (
        "Why is the sky blue?",
        "Air scatters short waves of sunlight more, so blue light reaches us.",
    ),
    ("How do vaccines work?", "They show the immune system a harmless part of a germ."),
    ("Was ist ein Vulkan?", "Ein Berg, aus dem geschmolzenes Gestein und Asche austreten."),
    (
        "¿Cómo cuido un gato?",
        "Dale agua, comida y una caja de arena limpia, y llévalo al veterinario.",
    ),
    ("How does a loan work?", "A bank lends you money, and you pay it back with interest."),
)


@pytest.mark.long
@pytest.mark.model
def test_answers_on_the_topic_score_higher_than_exchanged_ones() -> None:
    base = load_base(str(prepare(MODELS, say=lambda line: None)), dtype="float32", device="cpu")

    def ids(text: str) -> list[int]:
        return list(base.tokenizer.encode(text, add_special_tokens=False))

    asked = [
        prompt_ids(base.tokenizer, [{"role": "user", "content": question}]) for question, _ in PAIRS
    ]
    prompts = pooled_states(base, [(prompt, ()) for prompt in asked]).prompt.astype(float)

    def measured(shift: int) -> list[float]:
        answers = [ids(PAIRS[(number + shift) % len(PAIRS)][1]) for number in range(len(PAIRS))]
        rows = list(zip(asked, answers, strict=True))
        states = pooled_states(base, rows).completion.astype(float)
        return relevance(prompts, states, range(len(PAIRS)))

    right, wrong = measured(0), measured(2)
    assert min(right) > 0.1
    assert sum(right) / len(right) > sum(wrong) / len(wrong) + 0.2
