"""The rule of the simulated annotators: a function of the text alone.

An answer is up if all four conditions hold; they are the part of the starter's guidelines that a
rule can check:

1. finished: the answer is complete and ends with a closing mark;
2. short: 5 to 80 words;
3. on the topic: it shares a content word with the user's last message;
4. no repetition: no four words in a row appear twice.
"""

import re
from dataclasses import dataclass

LEAST_WORDS, MOST_WORDS = 5, 80
CLOSING = (".", "!", "?", "…", '."', '!"', '?"', ".”", "!”", "?”", ".)", "!)", "?)", "`", ":)")
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
STOPWORDS = frozenset(
    """a about after all also am an and any are as at be because been before being between both
    but by can could did do does doing down each few for from further get give had has have having
    he her here hers him his how i if in into is it its just keep know let like make many may me
    might more most much must my need no nor not now of off on once one only or other our out over
    own please same say she should so some such tell than that the their them then there these they
    thing things this those through time to too two under until up use very want was way we were
    what when where which while who whom why will with without would you your""".split()
)


@dataclass(frozen=True)
class Finding:
    """The result of the rule for one answer."""

    finished: bool
    short: bool
    on_topic: bool
    no_repetition: bool
    words: int

    @property
    def up(self) -> bool:
        return self.finished and self.short and self.on_topic and self.no_repetition

    @property
    def reasons(self) -> list[str]:
        """Return the reasons of a down vote."""
        found = {
            "unfinished": self.finished,
            "long": self.short or self.words < LEAST_WORDS,
            "off_topic": self.on_topic,
            "repeats": self.no_repetition,
        }
        return [key for key, fine in found.items() if not fine]


def words_of(text: str) -> list[str]:
    """Return the words in lower case, without punctuation."""
    return [word.lower() for word in WORD.findall(text)]


def stem(word: str) -> str:
    """Return a stem that inflections share: 'bak' for 'baking' and 'bakes'."""
    for ending in ("'s", "’s", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content_stems(text: str) -> set[str]:
    """Return the stems of the content words of a text."""
    return {stem(word) for word in words_of(text) if word not in STOPWORDS and len(word) > 2}


def repeats(words: list[str], size: int = 4) -> bool:
    """Return whether any sequence of `size` words appears twice."""
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return len(set(runs)) < len(runs)


def judge(*, question: str, answer: str, complete: bool) -> Finding:
    """Apply the rule. `question` is the user's last message."""
    words = words_of(answer)
    return Finding(
        finished=complete and answer.rstrip().endswith(CLOSING),
        short=LEAST_WORDS <= len(words) <= MOST_WORDS,
        on_topic=bool(content_stems(question) & content_stems(answer)),
        no_repetition=not repeats(words),
        words=len(words),
    )
