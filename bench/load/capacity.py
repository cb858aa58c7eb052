"""What an installation needs for a number of annotators and GPUs: `python -m bench.load.capacity`.

Computed from what `make bench-load` and `make bench-scale` measured on one machine (docs/scaling.md
says which). Another processor: change COSTS to what those print there.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Measured constants: core seconds, and bytes in the database."""

    vote_web: float
    vote_database: float
    #: of a message, its answer of 40 tokens as a stream, and a thumb on it
    chat_web: float
    chat_database: float
    #: of a vote with its event, its example, and the answer and half a prompt that it is about
    vote_bytes: int


@dataclass(frozen=True)
class Use:
    """How people use it, at the busiest time of a day. Assumed, not measured."""

    #: a verdict needs reading: seconds from one to the next
    seconds_a_vote: float = 15.0
    #: people in the demo and API clients for each annotator
    chats_an_annotator: float = 0.2
    #: of such a person or client, from one message to the next
    seconds_a_message: float = 30.0
    tokens_an_answer: int = 200
    hours_a_day: float = 6.0
    days_a_year: int = 230


@dataclass(frozen=True)
class Need:
    """What is needed at the busiest time, and what a year stores."""

    votes_a_second: float
    messages_a_second: float
    web_cores: float
    web_processes: int
    database_cores: float
    connections: int
    tokens_a_second: float
    votes_a_year: float
    bytes_a_year: float


#: AMD EPYC (Zen 3), PostgreSQL 18; see docs/scaling.md.
COSTS = Costs(
    vote_web=0.025,
    vote_database=0.0072,
    chat_web=2 * 0.0637,
    chat_database=2 * 0.0123,
    vote_bytes=214 + 137 + 161 + 979 + 148,
)
#: The share of a core that is planned for: beyond it response times grow quickly.
UTILISATION = 0.6
#: Threads of a web process that hold a connection (config/threads.py).
THREADS = 16 + 128 + 8


def need(annotators: int, *, costs: Costs = COSTS, use: Use | None = None) -> Need:
    """Return what this many annotators and the chats beside them need."""
    use = use or Use()
    votes = annotators / use.seconds_a_vote
    messages = annotators * use.chats_an_annotator / use.seconds_a_message
    web = votes * costs.vote_web + messages * costs.chat_web
    database = votes * costs.vote_database + messages * costs.chat_database
    # a process runs Python on one core at a time
    processes = max(2, math.ceil(web / UTILISATION))
    year = votes * 3600 * use.hours_a_day * use.days_a_year
    return Need(
        votes_a_second=votes,
        messages_a_second=messages,
        web_cores=web / UTILISATION,
        web_processes=processes,
        database_cores=database / UTILISATION,
        connections=processes * THREADS,
        tokens_a_second=messages * use.tokens_an_answer,
        votes_a_year=year,
        bytes_a_year=year * costs.vote_bytes,
    )


def table() -> str:
    """Return the table of docs/scaling.md."""
    lines = [
        "| annotators | votes/s | messages/s | web cores | web processes | database cores "
        "| connections at most | tokens/s | votes a year | GB a year |",
        "|---" * 10 + "|",
    ]
    for annotators in (10, 100, 1_000, 10_000):
        n = need(annotators)
        lines.append(
            f"| {annotators:,} | {n.votes_a_second:,.1f} | {n.messages_a_second:,.1f} "
            f"| {n.web_cores:,.1f} | {n.web_processes:,} | {n.database_cores:,.1f} "
            f"| {n.connections:,} | {n.tokens_a_second:,.0f} | {n.votes_a_year / 1e6:,.1f} million "
            f"| {n.bytes_a_year / 1e9:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
