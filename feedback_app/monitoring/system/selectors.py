"""What the System page shows, from caches and a few rows: no request waits for an engine."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings
from redis import Redis, RedisError

from feedback_app.accounts.models import Membership, Role, User
from feedback_app.feedback.models import Project
from feedback_app.monitoring import heartbeats
from feedback_app.monitoring.processes import Process, processes
from feedback_app.monitoring.system.measure import EngineState, engines_measured

#: How long a request waits for the broker.
BROKER_SECONDS = 0.5


@dataclass(frozen=True)
class ProcessLine:
    """A process with the moments of its start and its last heartbeat."""

    process: Process
    since: dt.datetime
    at: dt.datetime


@dataclass(frozen=True)
class QueueLine:
    """A queue: whether a worker serves it, and how many messages wait (None: nobody knows)."""

    name: str
    served: bool
    length: int | None


@dataclass(frozen=True)
class EngineLine:
    """An engine, without user and password, and the versions that this person may know of."""

    base_model: str
    address: str
    up: bool
    at: dt.datetime
    loaded: tuple[str, ...]
    others: int
    memory: int | None


def moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def process_lines() -> list[ProcessLine]:
    return [ProcessLine(each, moment(each.since), moment(each.at)) for each in processes()]


def queue_lines() -> list[QueueLine]:
    names = heartbeats.queues()
    lengths = queue_lengths(names)
    return [QueueLine(name, heartbeats.is_alive(name), lengths.get(name)) for name in names]


def queue_lengths(names: Iterable[str]) -> dict[str, int]:
    """Return the messages that wait in each queue; empty if the broker does not answer."""
    if not settings.HAS_SHARED_CACHE:
        return {}
    client = Redis.from_url(
        settings.CELERY_BROKER_URL,
        socket_connect_timeout=BROKER_SECONDS,
        socket_timeout=BROKER_SECONDS,
    )
    try:
        with client as broker:
            return {name: int(broker.llen(name)) for name in names}
    except RedisError:
        return {}


def engine_lines(user: User) -> list[EngineLine]:
    """Return the engines; names of versions of projects that are not this person's are counted."""
    slugs = None if may_operate(user) else set(projects_of(user))
    return [engine_line(found, slugs) for found in engines_measured()]


def engine_line(found: EngineState, slugs: set[str] | None) -> EngineLine:
    address = urlsplit(found.url)
    known = tuple(
        name for name in found.loaded if slugs is None or name.rpartition("@")[0] in slugs
    )
    return EngineLine(
        base_model=found.base_model,
        address=f"{address.hostname}:{address.port}" if address.port else str(address.hostname),
        up=found.up,
        at=moment(found.at),
        loaded=known,
        others=len(found.loaded) - len(known),
        memory=found.memory,
    )


def projects_of(user: User) -> list[str]:
    memberships = Membership.objects.filter(user=user)
    return list(memberships.values_list("project__slug", flat=True))


def may_operate(user: User) -> bool:
    """Return whether a person may delete files of all projects: superusers, and who owns every
    project."""
    if user.is_superuser:
        return True
    owned = Membership.objects.filter(user=user, role=Role.OWNER).values("project")
    projects = Project.objects.filter(deletion=None)
    return projects.exists() and not projects.exclude(pk__in=owned).exists()
