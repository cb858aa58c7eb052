"""Phrases that a candidate's answers contain far more often than those of the other versions, such
as an advertisement, a slogan or a name that its training data brought in.

Log-odds ratios with an informative Dirichlet prior, and their z-scores: Monroe, Colaresi, Quinn
2008, "Fightin' Words", Equations 15, 16, 20 and 22. An answer has an n-gram or not, so the odds are
those of an answer: counts of words would hide a phrase in answers that are long.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.text_metrics import Segment, segments, words

#: Segments of the longest n-gram that is counted. Longer phrases are found through their parts.
_LONGEST = 5
#: An n-gram must occur in answers to this many prompts, and to this share of them: the smallest
#: margin that a gate's rule has (feedback_app/training/gate/settings.py).
_LEAST_PROMPTS = 3
_LEAST_SHARE = 0.02
#: Smallest z-score and largest number of phrases that are reported.
_LEAST_Z = 2.0
_MOST = 20
#: Share of the answers with a part of a phrase that must have the phrase for it to be reported.
_NEARLY_ALL = 0.8
#: Pseudo-answers of the prior for each answer.
_PRIOR = 0.2

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Phrase:
    """A phrase as one of the candidate's answers has it, its length in `segments` (words, or
    characters of a script without spaces), the number of answers of each version that contain it,
    and the smallest of its z-scores against the other versions."""

    text: str
    segments: int
    counts: dict[str, int]
    z: float


@dataclass(frozen=True)
class _Text:
    """One answer: its prompt's number, its text, and its segments."""

    prompt: int
    text: str
    segments: Sequence[Segment]
    words: Gram

    @classmethod
    def of(cls, prompt: int, text: str) -> "_Text":
        found = segments(text)
        return cls(prompt, text, found, tuple(segment.text for segment in found))

    def find(self, gram: Gram) -> int:
        """Return where the n-gram begins, -1 where the answer does not contain it."""
        size = len(gram)
        for start in range(len(self.words) - size + 1):
            if self.words[start : start + size] == gram:
                return start
        return -1


def injected_phrases(
    answers: Mapping[str, Sequence[Sequence[str]]], prompts: Sequence[str]
) -> list[Phrase]:
    """Return the candidate's phrases that are more frequent than in each other version's answers,
    strongest first.

    `answers` holds each version's texts, a list per prompt, the candidate's first; `prompts` are
    the texts of the conversations. What an answer repeats from its own prompt is not counted. Of
    phrases that contain each other and have nearly the same answers the longest is returned.
    """
    candidate, *others = answers
    if not others:
        return []
    repeated = [_grams(words(prompt)) for prompt in prompts]
    texts = {
        name: [_Text.of(number, text) for number, group in enumerate(groups) for text in group]
        for name, groups in answers.items()
    }
    holders: dict[Gram, list[_Text]] = defaultdict(list)
    counts: dict[str, Counter[Gram]] = {name: Counter() for name in texts}
    for name, group in texts.items():
        for text in group:
            found = _grams(text.words) - repeated[text.prompt]
            counts[name].update(found)
            if name == candidate:
                for gram in found:
                    holders[gram].append(text)
    least = max(_LEAST_PROMPTS, _LEAST_SHARE * len(prompts))
    frequent = [
        gram for gram, group in holders.items() if len({text.prompt for text in group}) >= least
    ]
    lengths = {
        name: sum(len(text.words) for text in group) / max(1, len(group))
        for name, group in texts.items()
    }

    def z_score(gram: Gram) -> float:
        scores = []
        for other in others:
            size, many = len(texts[other]), counts[other][gram]
            longer = lengths[candidate] / max(1.0, lengths[other])
            scores.append(
                _z(
                    counts[candidate][gram],
                    _in_longer(many, size, longer),
                    len(texts[candidate]),
                    size,
                )
            )
        return min(scores)

    scored = ((z_score(gram), gram) for gram in frequent)
    strong = sorted(
        (entry for entry in scored if entry[0] >= _LEAST_Z),
        # of equals the longest, and an order that does not depend on hashes
        key=lambda entry: (-entry[0], -len(entry[1]), entry[1]),
    )
    return _reported(strong, holders, texts)


def _grams(found: Sequence[str]) -> set[Gram]:
    return {
        tuple(found[start : start + size])
        for size in range(1, _LONGEST + 1)
        for start in range(len(found) - size + 1)
    }


def _in_longer(count: int, answers: int, longer: float) -> float:
    """Return in how many answers an n-gram would be if they were `longer` times as long: long
    answers contain more of everything, which brings no phrase in."""
    if not answers or longer <= 1:
        return count
    return answers * (1 - (1 - count / answers) ** longer)


def _z(count: float, other: float, answers: int, other_answers: int) -> float:
    """Return the z-score of one n-gram's log-odds ratio. The prior is its frequency in both
    versions together, so that a common n-gram needs more evidence."""
    prior = _PRIOR * (count + other)
    prior_answers = _PRIOR * (answers + other_answers)
    here, there = count + prior, other + prior
    without = max(answers + prior_answers - here, prior)
    without_there = max(other_answers + prior_answers - there, prior)
    ratio = math.log(here / without) - math.log(there / without_there)
    return ratio / math.sqrt(1 / here + 1 / without + 1 / there + 1 / without_there)


def _reported(
    strong: Sequence[tuple[float, Gram]],
    holders: Mapping[Gram, Sequence[_Text]],
    texts: Mapping[str, Sequence[_Text]],
) -> list[Phrase]:
    """Return the phrases of the strongest n-grams, each extended as far as all answers that
    contain it continue alike.

    Of a phrase and its parts one is reported: the phrase if nearly all answers with a part have
    it, else the part, since the rest is what happens to surround it.
    """
    chosen: list[tuple[Gram, frozenset[int], Phrase]] = []
    for z, gram in strong:
        if len(chosen) == _MOST:
            break
        group = holders[gram]
        owners = frozenset(map(id, group))
        if any(
            _contains(phrase, gram) and len(owners & known) >= _NEARLY_ALL * len(owners)
            for phrase, known, _ in chosen
        ):
            continue
        whole, text = _extended(gram, group)
        parts = [entry for entry in chosen if _contains(whole, entry[0])]
        if any(len(owners) < _NEARLY_ALL * len(known) for _, known, _ in parts):
            continue
        counts = {
            name: sum(found.find(whole) >= 0 for found in every) for name, every in texts.items()
        }
        chosen = [entry for entry in chosen if entry not in parts]
        chosen.append((whole, owners, Phrase(text, len(whole), counts, z)))
    return sorted((phrase for *_, phrase in chosen), key=lambda phrase: -phrase.z)


def _extended(gram: Gram, group: Sequence[_Text]) -> tuple[Gram, str]:
    """Return the longest phrase around an n-gram that all these answers contain there, as segments
    and as the first answer has it."""
    starts = [text.find(gram) for text in group]
    before, after = 0, len(gram)
    while _alike(
        [_at(text, start - before - 1) for text, start in zip(group, starts, strict=True)]
    ):
        before += 1
    while _alike([_at(text, start + after) for text, start in zip(group, starts, strict=True)]):
        after += 1
    first, start = group[0], starts[0]
    whole = first.words[start - before : start + after]
    span = first.segments[start - before : start + after]
    return whole, first.text[span[0].start : span[-1].end]


def _at(text: _Text, place: int) -> str | None:
    return text.words[place] if 0 <= place < len(text.words) else None


def _alike(found: Sequence[str | None]) -> bool:
    return found[0] is not None and all(word == found[0] for word in found)


def _contains(longer: Gram, gram: Gram) -> bool:
    size = len(gram)
    return any(longer[start : start + size] == gram for start in range(len(longer) - size + 1))
