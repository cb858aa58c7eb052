"""The ledger: what the server accepted from each person, in order, and what else it answered."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

#: The person of a vote: ("user", id), ("visitor", 0) or ("api", name). A visitor does not know
#: the id of its user, and only one visitor has a given answer.
Person = tuple[str, int | str]


@dataclass
class Ledger:
    """Verdicts by (person, completion); an empty verdict is an undo."""

    accepted: dict[tuple[Person, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    #: answers by kind and outcome, for the report
    outcomes: Counter[str] = field(default_factory=Counter)
    #: what must never happen, with a description
    faults: list[str] = field(default_factory=list)
    #: versions of accepted releases in order, and whether one was of unknown outcome
    releases: list[str] = field(default_factory=list)

    def accept(self, person: Person, completion: int, verdict: str) -> None:
        self.accepted[person, completion].append(verdict)

    def fault(self, text: str) -> None:
        self.faults.append(text)


def events_of(verdicts: list[str]) -> list[str]:
    """Return the events of a person's verdicts on one completion: repeating one changes nothing."""
    events: list[str] = []
    for verdict in verdicts:
        if verdict != (events[-1] if events else ""):
            events.append(verdict)
    return events
