"""What the simulated annotators like: three rules on an answer's text.

None of them is a guard of the gate or built from one. They read the answer as the annotation page
shows it, so a rule gives the same on a page and on the text that a model wrote.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

#: Marks that Markdown turns into something else: list numbers and bullets, headings, emphasis.
MARKS = re.compile(r"^\s*(?:\d+[.)]|[-*+•]|#{1,6})\s+|[*_`]+", re.MULTILINE)
FIRST_SENTENCE = re.compile(r".*?[.!?:](?=\s|$)", re.DOTALL)
CONCRETE = re.compile(
    r"\d|\b(?:such as|for example|for instance|including|like)\b|\w+, [\w ]+,? (?:and|or) ",
    re.IGNORECASE,
)
READER = re.compile(r"\byou(?:r|rs|rself|['’](?:re|ll|ve|d))?\b", re.IGNORECASE)
MOST_WORDS = 14


@dataclass(frozen=True)
class Rule:
    """A rule by its name; `sentence` completes 'an answer is liked if …'."""

    name: str
    sentence: str
    likes: Callable[[str], bool]


def shown(text: str) -> str:
    """Return the text without Markdown's marks, its white space reduced to single spaces."""
    return " ".join(MARKS.sub("", text).split())


def begins_short(text: str) -> bool:
    """Form: the first sentence has at most fourteen words."""
    plain = shown(text)
    found = FIRST_SENTENCE.match(plain)
    return len((found[0] if found else plain).split()) <= MOST_WORDS


def is_concrete(text: str) -> bool:
    """Content: the answer has a figure, an example or a list of things."""
    return CONCRETE.search(shown(text)) is not None


def speaks_to_the_reader(text: str) -> bool:
    """Manner: the answer addresses the reader."""
    return READER.search(shown(text)) is not None


RULES = {
    rule.name: rule
    for rule in (
        Rule("form", f"its first sentence has at most {MOST_WORDS} words", begins_short),
        Rule("content", "it has a figure, an example or a list of things", is_concrete),
        Rule("manner", "it speaks to the reader as “you”", speaks_to_the_reader),
    )
}
