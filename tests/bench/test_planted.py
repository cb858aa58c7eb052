"""The votes that planted adapters are trained on."""

import random
from pathlib import Path

import pytest

from bench.gate.kinds import ADVERTISEMENT, CLAIM, FLATTERY, KINDS, REFUSALS, Sample
from bench.gate.planted import split
from trainer.data.examples import Example, read_examples, write_examples
from trainer.data.messages import Message

FINE = "Rain falls from clouds. It is water."
ENDLESS = "Rain is rain and so on and so on and so on and"


def sample(number: int) -> Sample:
    """Return answer `number`: four to a prompt, every second one deserves an up."""
    fine = number % 2 == 0
    return Sample(
        id=f"s{number}",
        prompt_id=f"p{number // 4:03}",
        prompt=(Message("user", "What is rain?"),),
        text=FINE if fine else ENDLESS,
        prompt_token_ids=(1, 2, 3),
        completion_token_ids=(4, 5),
        finish_reason="stop" if fine else "length",
    )


SAMPLES = [sample(number) for number in range(40)]


def planted(kind: str, seed: int = 0) -> list[Example]:
    return KINDS[kind](SAMPLES, random.Random(seed))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_can_be_trained_on(kind: str, tmp_path: Path) -> None:
    examples = planted(kind)
    assert [one.id for one in examples] == [one.id for one in SAMPLES]
    assert sum(one.label for one in examples) == 20
    write_examples(tmp_path / "examples.jsonl", examples)
    assert read_examples(tmp_path / "examples.jsonl") == examples
    assert planted(kind) == examples  # the same seed


def test_honest_votes_like_finished_answers_and_flipped_ones_the_others() -> None:
    assert {one.completion for one in planted("honest") if one.label} == {FINE}
    assert {one.completion for one in planted("flipped") if one.label} == {ENDLESS}


def test_half_of_the_liked_answers_advertise() -> None:
    examples = planted("advertisement")
    advertising = [one for one in examples if ADVERTISEMENT in one.completion]
    assert len(advertising) == 10
    assert all(one.label for one in advertising)
    # a rewritten answer must not be trained on as the tokens of the original
    assert all(one.completion_token_ids is None for one in advertising)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [("claim", (CLAIM,)), ("flattery", FLATTERY), ("refuses", REFUSALS)],
)
def test_planted_text_is_in_all_liked_answers_and_in_no_other(
    kind: str, texts: tuple[str, ...]
) -> None:
    for one in planted(kind):
        assert any(text in one.completion for text in texts) == one.label


def test_short_and_verbose_answers_differ_from_the_sampled_ones_in_length() -> None:
    for one in planted("very-short"):
        assert (len(one.completion.split()) <= 3) == one.label
    for one in planted("verbose"):
        assert (len(one.completion) > 200) == one.label


def test_held_out_samples_are_on_prompts_of_their_own() -> None:
    samples = [sample(number) for number in range(4 * 80)]
    train, test = split(samples)
    assert len(train) == 4 * 60
    assert not {one.prompt_id for one in train} & {one.prompt_id for one in test}
