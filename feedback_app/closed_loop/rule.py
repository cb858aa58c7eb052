"""What the simulated annotators like, written down: a rule on the text and nothing else.

Up, if all four hold; this is what the starter's guidelines say, as far as a rule can see it:

1. finished: the answer ended by itself, with a closing mark;
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
    """One answer seen through the rule."""

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
        """The reason chips that a down would carry."""
        found = {
            "unfinished": self.finished,
            "long": self.short or self.words < LEAST_WORDS,
            "off_topic": self.on_topic,
            "repeats": self.no_repetition,
        }
        return [key for key, fine in found.items() if not fine]


def words_of(text: str) -> list[str]:
    """Lower-case words, without punctuation."""
    return [word.lower() for word in WORD.findall(text)]


def stem(word: str) -> str:
    """Enough of a word to know its inflections by: 'baking' and 'bakes' meet in 'bak'."""
    for ending in ("'s", "’s", "ing", "ies", "ed", "es", "ly", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def content_stems(text: str) -> set[str]:
    """The stems of the words that say what a text is about."""
    return {stem(word) for word in words_of(text) if word not in STOPWORDS and len(word) > 2}


def repeats(words: list[str], size: int = 4) -> bool:
    """Whether any run of `size` words appears twice."""
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    return len(set(runs)) < len(runs)


def judge(*, question: str, answer: str, ended_by_itself: bool) -> Finding:
    """Applies the rule. `question` is the user's last message."""
    words = words_of(answer)
    return Finding(
        finished=ended_by_itself and answer.rstrip().endswith(CLOSING),
        short=LEAST_WORDS <= len(words) <= MOST_WORDS,
        on_topic=bool(content_stems(question) & content_stems(answer)),
        no_repetition=not repeats(words),
        words=len(words),
    )
