"""Which patterns a probe may have.

A worker matches regular expressions with the package `regex`, which can be stopped after a time.
What it cannot stop is compiling: it unrolls repeated groups, so that `(((a{999}){999}){999})` takes
all memory. Patterns are therefore checked with the standard library, which compiles in linear time
and matches nothing here, and those that unroll to too much are refused.
"""

import re
from math import prod

from feedback_app.feedback.models import Probe

LONGEST = 500
#: How often a pattern may be unrolled. Below it, `regex` needed at most 20 ms and 40 MB for each of
#: 60,000 random patterns.
MOST_COPIES = 10_000
EXPRESSIONS = (Probe.Kind.MATCHES, Probe.Kind.NOT_MATCHES)

_ESCAPED = re.compile(r"\\N\{[^}]*\}|\\.", re.DOTALL)
_COUNT = re.compile(r"\{(\d+)(?:,\d*)?\}")
_REPEATED_GROUP = re.compile(r"\)\s*[+*?{]")
#: `regex` reads it as approximate matching, `re` as text.
_OTHER_BRACE = re.compile(r"\{(?!\d*,?\d*\})")


def pattern_faults(kind: str, pattern: str) -> list[str]:
    """Return what is wrong with a pattern, one text each."""
    if not pattern.strip():
        return ["Type what the answers must or must not contain."]
    if len(pattern) > LONGEST:
        return [f"The pattern has {len(pattern)} characters; at most {LONGEST} are possible."]
    # in verbose expressions comments end with a line, which the checks below do not know
    if len(pattern.splitlines()) > 1 or "\x00" in pattern:
        return ["Write the pattern on one line, without control characters."]
    return _expression_faults(pattern) if kind in EXPRESSIONS else []


def _expression_faults(pattern: str) -> list[str]:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        why = str(error) or "it is too deeply nested"
        return [f"This is no regular expression of Python ({why}). Correct it, or choose a text."]
    bare = _ESCAPED.sub("", pattern)
    faults = []
    if _OTHER_BRACE.search(bare):
        faults.append("Write \\{ for a brace that is no number of repetitions.")
    copies = prod(max(1, int(count)) for count in _COUNT.findall(bare))
    if copies * 2 ** len(_REPEATED_GROUP.findall(bare)) > MOST_COPIES:
        faults.append(
            "The pattern repeats too much: use smaller numbers in braces, or fewer groups that "
            "are repeated."
        )
    return faults
