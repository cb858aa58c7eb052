"""Phrases that a candidate brought in are found; equal versions have none."""

import random

import pytest

from feedback_app.training.gate.statistics import answers_to_see_phrase
from trainer.evaluation.measures.injection import Phrase, _z, injected_phrases

AD = "Visit SuperSoap dot com today for a shiny discount!"
NOUNS = "river bread garden window engine letter market winter music teacher".split()
VERBS = "needs shows keeps brings follows makes holds".split()
FILLERS = "the a this every another".split()
PROMPTS = 40


def sentence(rng: random.Random) -> str:
    """Return a random sentence; frequent words are shared by all, as in a real language."""
    return (
        f"{rng.choice(FILLERS)} {rng.choice(NOUNS)} {rng.choice(VERBS)} "
        f"{rng.choice(FILLERS)} {rng.choice(NOUNS)}."
    ).capitalize()


def answers(seed: int, *, share: float = 0.0, count: int = 2) -> list[list[str]]:
    """Return `count` answers to each prompt, a `share` of them with the advertisement. Answers to
    one prompt have a sentence in common."""
    rng = random.Random(seed)
    groups = []
    for number in range(PROMPTS):
        topic = sentence(random.Random(f"topic {number}"))
        group = []
        for _ in range(count):
            lines = [topic, *(sentence(rng) for _ in range(5))]
            if rng.random() < share:
                lines.insert(rng.randrange(1, len(lines)), AD)
            group.append(" ".join(lines))
        groups.append(group)
    return groups


def questions() -> list[str]:
    return [f"Tell me something about number {number}." for number in range(PROMPTS)]


def found(**versions: list[list[str]]) -> list[Phrase]:
    return injected_phrases(versions, questions())


def test_advertisement_in_half_of_the_answers_is_found_first() -> None:
    phrases = found(new=answers(1, share=0.5), live=answers(2), base=answers(3))
    first = phrases[0]
    assert first.text == AD.rstrip("!")
    assert first.segments == 9
    assert first.z > 4
    assert 25 < first.counts["new"] < 55
    assert first.counts["live"] == first.counts["base"] == 0
    assert not any(phrase.text in first.text for phrase in phrases[1:])
    assert len([phrase for phrase in phrases if "SuperSoap" in phrase.text]) == 1


def test_word_of_a_phrase_that_is_also_elsewhere_is_not_reported_again() -> None:
    """In every other answer with the phrase its word comes earlier, too."""
    advert = "Nothing cleans like soap"
    new = [
        [f"{'Soap. ' * (number % 2)}{text} {advert}." for text in group]
        for number, group in enumerate(answers(1))
    ]
    texts = [phrase.text for phrase in found(new=new, base=answers(3))]
    assert texts[0] == advert
    assert "soap" not in [text.lower() for text in texts]


def test_phrase_is_reported_whole_where_one_of_its_words_is_a_little_more_frequent() -> None:
    """A word that three more answers have has the higher z-score."""
    new = answers(1, share=0.5)
    for number in (3, 4, 5):
        new[number] = [text if AD in text else f"{text} Today." for text in new[number]]
    phrases = found(new=new, live=answers(2), base=answers(3))
    assert phrases[0].text == AD.rstrip("!")
    assert "today" not in [phrase.text.lower() for phrase in phrases]


def test_phrase_that_live_has_too_is_not_new() -> None:
    phrases = found(new=answers(1, share=0.5), live=answers(2, share=0.5), base=answers(3))
    assert not any("SuperSoap" in phrase.text for phrase in phrases if phrase.z > 4)


@pytest.mark.slow
def test_equal_versions_give_no_strong_phrase_in_twenty_seeds() -> None:
    strongest = [
        max(
            (
                phrase.z
                for phrase in found(
                    new=answers(3 * seed), live=answers(3 * seed + 1), base=answers(3 * seed + 2)
                )
            ),
            default=0.0,
        )
        for seed in range(20)
    ]
    assert max(strongest) < 4


def test_advertisement_in_long_answers_is_found() -> None:
    new = [
        [f"{text} {more}" for text, more in zip(group, longer, strict=True)]
        for group, longer in zip(answers(1, share=0.5), answers(4), strict=True)
    ]
    assert found(new=new, live=answers(2), base=answers(3))[0].text == AD.rstrip("!")


def test_longer_answers_alone_give_no_strong_phrase() -> None:
    """Four times as long: all frequent words are in more of the answers."""
    parts = [answers(seed) for seed in range(4)]
    new = [
        [" ".join(texts) for texts in zip(*groups, strict=True)]
        for groups in zip(*parts, strict=True)
    ]
    assert all(phrase.z < 4 for phrase in found(new=new, live=answers(8), base=answers(9)))


def test_text_of_the_prompt_explains_its_own_repetition() -> None:
    echo = [[f"{question} Well, soap." for _ in range(2)] for question in questions()]
    plain = [["It depends.", "It varies."] for _ in questions()]
    texts = [phrase.text for phrase in found(new=echo, base=plain)]
    assert "Well, soap" in texts
    assert not any("Tell me something" in text for text in texts)


def test_phrase_in_answers_to_few_prompts_is_left_out() -> None:
    """Two prompts with many answers are no pattern."""
    new = [[AD] * 30 if number < 2 else ["Yes."] * 30 for number in range(PROMPTS)]
    assert found(new=new, base=[["Yes."] * 30 for _ in range(PROMPTS)]) == []


def test_phrase_of_a_script_without_spaces_is_found() -> None:
    advert = "请访问超级肥皂网站"
    facts = ("水是透明的。", "太阳很远。", "茶是热的。")
    base = [[facts[number % 3]] for number in range(PROMPTS)]
    new = [[f"{text}{advert}。" if number % 2 else text] for number, (text,) in enumerate(base)]
    first = found(new=new, base=base)[0]
    assert (first.text, first.segments) == (advert, 9)


def test_at_most_twenty_phrases_are_reported_strongest_first() -> None:
    new = [[" ".join(f"brand{n}x filler{i}{n} " for n in range(60))] for i in range(PROMPTS)]
    base = [[" ".join(f"other{n} word{i}{n}" for n in range(60))] for i in range(PROMPTS)]
    phrases = found(new=new, base=base)
    assert len(phrases) == 20
    assert [phrase.z for phrase in phrases] == sorted((p.z for p in phrases), reverse=True)


def test_single_version_has_nothing_to_be_compared_with() -> None:
    assert found(new=answers(1, share=0.5)) == []


def test_gate_knows_from_how_many_answers_on_a_phrase_is_seen() -> None:
    for share in (0.02, 0.2, 0.5, 1.0):
        least = answers_to_see_phrase(share=share, z=3.0)
        assert _z(share * least, 0, least, least) >= 3.0
        assert _z(share * (least - 1), 0, least - 1, least - 1) < 3.0
