"""What must hold after a soak. Each check returns the differences it found, as text."""

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

import psutil
from django.db.models import Count
from django.utils import timezone

from feedback_app.accounts.models import ApiPerson
from feedback_app.feedback.models import (
    BASE_VERSION,
    Completion,
    Example,
    Lease,
    Project,
    Sampling,
    Skip,
    Vote,
    VoteEvent,
)
from feedback_app.serving.models import OpenAnswer, Release, ShareLink, Turn
from feedback_app.training.models import Adapter, Run
from feedback_app.training.registry.files import BadAdapter, manifest_check
from tests.soak.ledger import Ledger, Person, events_of
from tests.soak.measure import Figures, same

#: Differences that are printed of each kind.
SHOWN = 20
#: Growth of memory that is allowed, and of sockets.
GROWTH = 0.05
#: Some keep-alive connections more are no leak in a process that has few.
FEW_SOCKETS = 2
#: A thread of the web has one to the database and one to the cache.
SOCKETS_PER_THREAD = 2
#: What the web listens on, and wakes its event loop and its parent process with.
OWN_SOCKETS = 8
#: kombu's pollers of lost connections wait for the garbage collector: beat has up to ten.
GARBAGE = 16
#: Half-written files that nothing will ever finish.
HALF = ("*.partial", "*.tmp", ".*.partial")

Key = tuple[int, int]  # completion, user


def expected_votes(ledger: Ledger, project: Project) -> dict[Key, list[str]]:
    """Return the accepted verdicts by completion and user."""
    people = dict(ApiPerson.objects.filter(project=project).values_list("name", "user_id"))
    owners = dict(
        Turn.objects.filter(conversation__project=project, completion__isnull=False).values_list(
            "completion_id", "conversation__user_id"
        )
    )

    def user_of(person: Person, completion: int) -> int:
        kind, value = person
        if kind == "visitor":
            return int(owners.get(completion) or 0)
        return int(people.get(str(value), 0) if kind == "api" else value)

    return {
        (completion, user_of(person, completion)): verdicts
        for (person, completion), verdicts in ledger.accepted.items()
    }


def votes(expected: dict[Key, list[str]], project: Project) -> list[str]:
    """Every accepted verdict is stored once, the last one counts, and nothing else is stored."""
    last = {key: verdicts[-1] for key, verdicts in expected.items() if verdicts[-1]}
    rows = Vote.objects.filter(project=project).values_list("completion_id", "user_id", "verdict")
    stored = {(completion, user): verdict for completion, user, verdict in rows}
    found = [f"accepted but not stored: {of(key, last[key])}" for key in last.keys() - stored]
    found += [f"stored but not accepted: {of(key, stored[key])}" for key in stored.keys() - last]
    return found + [
        f"stored as {stored[key]}, but last accepted: {of(key, last[key])}"
        for key in last.keys() & stored
        if stored[key] != last[key]
    ]


def of(key: Key, verdict: str) -> str:
    return f"{verdict} of user {key[1]} on completion {key[0]}"


def events(expected: dict[Key, list[str]], project: Project) -> list[str]:
    """The events of each vote are its accepted changes, each once and in order."""
    stored: dict[Key, list[str]] = defaultdict(list)
    rows = VoteEvent.objects.filter(completion__project=project).order_by("pk")
    for completion, user, verdict in rows.values_list("completion_id", "user_id", "verdict"):
        stored[completion, user].append(verdict)
    found = []
    for key in expected.keys() | stored.keys():
        due = events_of(expected.get(key, []))
        if stored[key] != due:
            found.append(f"completion {key[0]}, user {key[1]}: {stored[key]}, not {due}")
    return found


def examples(expected: dict[Key, list[str]], project: Project) -> list[str]:
    """Examples and counts are what the accepted votes amount to: majority, weight by agreement."""
    standing: dict[int, list[str]] = defaultdict(list)
    for (completion, _), verdicts in expected.items():
        if verdicts[-1]:
            standing[completion].append(verdicts[-1])
    rows = Example.objects.filter(project=project)
    stored = {pk: (up, weight) for pk, up, weight in rows.values_list("pk", "desirable", "weight")}
    found = []
    fields = ("pk", "text", "vote_count", "contested")
    for pk, text, count, contested in project.completions.values_list(*fields):
        cast = standing[pk]
        balance = cast.count("up") - cast.count("down")
        due = (balance > 0, abs(balance) / len(cast)) if balance and text.strip() else None
        if stored.get(pk) != due:
            found.append(f"example {stored.get(pk)} of completion {pk}, not {due}: {cast}")
        if (count, contested) != (len(cast), len(set(cast)) > 1):
            found.append(f"completion {pk} counts {count}, contested {contested}: {cast}")
    return found


def link_counts(expected: dict[Key, list[str]], link: ShareLink) -> list[str]:
    """The link counts its visitors' votes and messages."""
    visitors = set(link.visitors.values_list("user_id", flat=True))
    cast = sum(1 for (_, user), each in expected.items() if user in visitors and each[-1])
    link.refresh_from_db()
    found = [] if link.votes_used == cast else [f"{link.votes_used} votes counted, {cast} cast"]
    used = sum(link.visitors.values_list("messages_used", flat=True))
    if used != link.messages_used:
        found.append(f"{link.messages_used} messages counted, {used} by its visitors")
    return found


def runs(project: Project, artifacts: Path) -> list[str]:
    """Every run has ended; a succeeded one has one version, with good files; others have none."""
    found = []
    adapters = {one.run_id: one for one in Adapter.objects.filter(project=project)}
    for run in project.runs.order_by("number"):
        adapter = adapters.pop(run.pk, None)
        if run.active:
            found.append(f"{run} is still {run.status}")
        if run.status == Run.Status.FAILED:
            found.append(f"{run} failed: {run.error}")
        if (run.status == Run.Status.SUCCEEDED) != (adapter is not None):
            found.append(f"{run} is {run.status} and its version is {adapter and adapter.name}")
        if adapter is not None:
            try:
                manifest_check(adapter.directory, name=adapter.name)
            except BadAdapter as error:
                found.append(f"{run}: {error}")
        steps = list(run.metrics.order_by("step").values_list("step", flat=True))
        if steps != list(range(1, len(steps) + 1)):
            found.append(f"{run}: a step is missing or double: {steps}")
    directories = {path.name for path in (artifacts / "adapters").iterdir()}
    named = set(Adapter.objects.filter(project=project).values_list("name", flat=True))
    # a run that was cancelled after its files were published is resumed with them
    unfinished = {
        project.adapter_name(run.number)
        for run in project.runs.exclude(status=Run.Status.SUCCEEDED)
    }
    found += [f"directory of no version: {name}" for name in directories - named - unfinished]
    return found


def live(project: Project, ledger: Ledger) -> list[str]:
    """One version is live: the one that was released last."""
    project.refresh_from_db()
    rows = list(Release.objects.filter(project=project, live=True).select_related("adapter"))
    named = [row.version for row in rows] or [BASE_VERSION]
    found = []
    if named != [project.live_version]:
        found.append(f"live releases {named}, but the project answers with {project.live_version}")
    last = ledger.releases[-1] if ledger.releases else BASE_VERSION
    if project.live_version != last:
        found.append(f"{project.live_version} is live, but {last} was released last")
    fell_back = Release.objects.filter(project=project, fallback=True).count()
    if fell_back:
        found.append(f"{fell_back} fallbacks, though no file was damaged")
    return found


def leases(project: Project) -> list[str]:
    """Leases and votes never exceed the overlap; nobody holds what they judged."""
    now = timezone.now()
    valid = Lease.objects.filter(completion__project=project, expires_at__gt=now)
    found = []
    for lease in valid.select_related("completion"):
        mine = {"completion": lease.completion_id, "user": lease.user_id}
        if Vote.objects.filter(**mine).exists():
            found.append(f"user {lease.user_id} voted on {lease.completion_id} and still holds it")
    held = Counter(valid.values_list("completion_id", flat=True))
    counts = dict(Completion.objects.filter(pk__in=held).values_list("pk", "vote_count"))
    found += [
        f"completion {pk} has {counts[pk]} votes and {n} leases, overlap {project.overlap}"
        for pk, n in held.items()
        if counts[pk] + n > project.overlap
    ]
    twice = Skip.objects.values("completion", "user").annotate(n=Count("pk")).filter(n__gt=1)
    return found + [f"skipped twice: {row}" for row in twice]


def samplings(project: Project) -> list[str]:
    """Every sampling has ended with the answers that were requested, each once."""
    found = []
    # the imported answers have one that was never started
    for sampling in project.samplings.filter(started_at__isnull=False):
        if sampling.active:
            found.append(f"sampling {sampling.pk} is still {sampling.status}")
        counts = Counter(sampling.completions.values_list("prompt_id", flat=True))
        wrong = {pk: n for pk, n in counts.items() if n != sampling.answers_per_prompt}
        if wrong:
            found.append(f"sampling {sampling.pk}: answers by prompt {wrong}")
        if sampling.status != Sampling.Status.DONE or sampling.error:
            found.append(f"sampling {sampling.pk} is {sampling.status}: {sampling.error}")
    return found


def open_answers() -> list[str]:
    """No place of an answer is taken."""
    return [str(one) for one in OpenAnswer.objects.filter(until__gt=timezone.now())]


def processes_left(directory: Path) -> list[str]:
    """No process of the stacks or of their runs is left."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = str(directory) in process.environ().get("PROSPECT_VAR", "")
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            continue
    return found


def files_left(*directories: Path) -> list[str]:
    """No half-written file is left."""
    return sorted(
        {
            str(path)
            for directory in directories
            for pattern in HALF
            for path in directory.rglob(pattern)
        }
    )


def growth(
    before: dict[str, Figures], after: dict[str, Figures], *, memory: bool, ended: Collection[str]
) -> list[str]:
    """No process has grown: memory, descriptors, open files.

    `ended` names the processes that fault injection ended since `before` was measured.
    """
    found = []
    for name, old in before.items():
        if name in ended:
            continue
        new = after.get(name)
        if new is None:
            found.append(f"{name} is not there any more")
            continue
        if not same(old, new):
            found.append(f"{name} was restarted, though nothing ended it")
            continue
        if memory and new.memory > old.memory * (1 + GROWTH):
            found.append(
                f"{name}: memory {old.memory / 1e6:.1f} MB, then {new.memory / 1e6:.1f} MB "
                f"({new.memory / old.memory - 1:+.1%})"
            )
        if new.files > old.files:
            found.append(f"{name}: {old.files} open files, then {new.files}")
        if new.sockets > most_sockets(name, old, new):
            found.append(f"{name}: {old.sockets} sockets, then {new.sockets}")
        if new.descriptors - new.sockets > old.descriptors - old.sockets + GARBAGE:
            found.append(f"{name}: {old.descriptors} descriptors, then {new.descriptors}")
    return found


def most_sockets(name: str, old: Figures, new: Figures) -> float:
    """Return how many sockets a process may have at the end.

    Which process of the web answers how many requests is chance: its threads are the limit, and
    `more` compares the connections of both processes together.
    """
    if name.startswith("web-"):
        return SOCKETS_PER_THREAD * new.threads + OWN_SOCKETS
    # each thread of a worker opens its connection to the cache when it first needs it
    own = new.threads if name.startswith("worker-") else FEW_SOCKETS
    return max(old.sockets * (1 + GROWTH), old.sockets + max(own, FEW_SOCKETS))


def more(before: dict[str, int], after: dict[str, int], *, threads: int) -> list[str]:
    """No more connections are open than before, or than the web has threads.

    A thread keeps its connection to the database, and a process as many to the cache as it used at
    once: a pool that was not full before is no leak.
    """
    found = []
    for name, count in after.items():
        most = before[name] + FEW_SOCKETS
        kind = name.removeprefix("web-")
        if kind in ("database", "broker"):
            most += max(0, threads - before[f"web-{kind}"])
        if count > most:
            found.append(f"{name}: {before[name]} connections, then {count} (at most {most})")
    return found


def web_threads(after: dict[str, Figures]) -> int:
    """Return the number of threads of the web's processes."""
    return sum(of.threads for name, of in after.items() if name.startswith("web"))


def shown(found: list[str]) -> list[str]:
    """Return the first differences and the number of the others."""
    more = len(found) - SHOWN
    return found if more <= 0 else [*found[:SHOWN], f"and {more} more"]
