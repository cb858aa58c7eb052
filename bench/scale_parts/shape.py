"""What the scale benchmark's database holds, as SQL over a row's number.

Every column follows from the number, so that tables agree without reading each other: the votes on
completion n, its vote count, its example and its events are all computed from n. PostgreSQL only.
"""

from dataclasses import dataclass

SLUG = "scale"
#: Votes each completion may get; most have three, so all are still in the queue.
OVERLAP = 5
#: (completion of a block of ten, position of the vote on it) for the block's thirty votes.
VOTES_OF_TEN = [
    (place, vote) for place in range(1, 11) for vote in range({1: 1, 10: 5}.get(place, 3))
]
DAYS = 180
METRICS = 200
ITEMS = 2_000


@dataclass(frozen=True)
class Shape:
    """Numbers of rows at a size; all grow with it, but each list fills a page at every size."""

    completions: int

    @property
    def prompts(self) -> int:
        return self.completions // 2

    @property
    def people(self) -> int:
        return max(60, self.completions // 1_000)

    @property
    def versions(self) -> int:
        return max(50, self.completions // 2_000)

    @property
    def runs(self) -> int:
        return 20 * self.versions

    @property
    def more(self) -> int:
        """Completions beyond `completions` that nobody voted on, and as many ties."""
        return max(200, self.completions // 50)

    @property
    def items(self) -> int:
        """Examples in the snapshot of each version but the newest, which has all of them."""
        return min(ITEMS, self.completions // 5)

    # -- a completion n

    #: Votes on a completion.
    votes = "(CASE n % 10 WHEN 0 THEN 5 WHEN 1 THEN 1 ELSE 3 END)"
    source = (
        "(CASE WHEN (n / 10) % 20 < 2 THEN 'demo' WHEN (n / 10) % 20 = 2 THEN 'api' "
        "WHEN (n / 10) % 20 < 8 THEN 'import' ELSE 'sampled' END)"
    )
    gold = "(n % 1000 = 107)"
    flagged = "(n % 1000 = 123)"
    #: Completions with a final verdict, and with an open request for one.
    resolved = "(n % 500 = 113)"
    asked = "(n % 1000 = 137)"

    @staticmethod
    def up(n: str, vote: str) -> str:
        """Whether a vote on a completion is up: people agree in five of six cases."""
        return f"(({n} % 7 < 4) <> (({n} / 10 + {vote} * 5) % 6 = 0))"

    @property
    def ups(self) -> str:
        each = f"generate_series(0, {self.votes} - 1) AS vote"
        return f"(SELECT count(*) FROM {each} WHERE {self.up('n', 'vote')})"

    def adapter_number(self, n: str) -> str:
        """The run number of the version that wrote completion n."""
        return f"(20 * (({n} / 7) % {self.versions} + 1))"

    @property
    def version_number(self) -> str:
        base = f"{self.source} = 'import' OR n % 5 < 2"
        return f"(CASE WHEN {base} THEN 0 ELSE {self.adapter_number('n')} END)"

    @property
    def version(self) -> str:
        return (
            f"(CASE WHEN {self.source} = 'import' THEN 'import' WHEN n % 5 < 2 THEN 'base' "
            f"ELSE '{SLUG}@' || {self.adapter_number('n')} END)"
        )

    @property
    def prompt(self) -> str:
        return f"((n - 1) % {self.prompts} + 1)"

    def split(self, prompt: str) -> str:
        """The split of a prompt: a fifth is test and a tenth validation."""
        return (
            f"(CASE WHEN {prompt} % 10 IN (0, 5) THEN 'test' "
            f"WHEN {prompt} % 10 = 3 THEN 'validation' ELSE 'train' END)"
        )

    # -- a vote n

    vote_completion = (
        f"((n - 1) / 30 * 10 + (ARRAY{[place for place, _ in VOTES_OF_TEN]})[(n - 1) % 30 + 1])"
    )
    vote_position = f"((ARRAY{[vote for _, vote in VOTES_OF_TEN]})[(n - 1) % 30 + 1])"

    def voter(self, completion: str, vote: str) -> str:
        """The number of the person who cast a vote: five different ones on a completion."""
        return f"(({completion}::bigint * 7919 + {vote} * {self.people // 5 - 1}) % {self.people})"

    # -- others

    def demo(self, n: str) -> str:
        """The n-th completion of the demo."""
        return f"(200 * (({n} - 1) / 19 + 1) + 1 + ({n} - 1) % 19)"

    def moment(self, n: str, count: int, *, days: int = DAYS) -> str:
        """A time before now: row `count` is the newest."""
        seconds = days * 86_400 / count
        return f"(now() - make_interval(secs => ({count} - ({n})) * {seconds}::float + 60))"


def md5_id(kind: str, n: str = "n") -> str:
    """A UUID that follows from a number."""
    return f"md5('{kind}' || {n})::uuid"


def hashed(kind: str) -> str:
    """64 hexadecimal digits that follow from n, in no order."""
    return f"(md5('{kind}' || n) || md5('{kind}.' || n))"
