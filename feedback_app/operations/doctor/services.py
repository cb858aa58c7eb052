"""Runs the checks in groups; where a group's first check fails, its other checks are skipped."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from feedback_app.operations.doctor.checks import (
    artifacts,
    broker,
    configuration,
    database,
    engines,
    feedback,
    people,
    work,
)
from feedback_app.operations.doctor.findings import Check, Problem

#: Other checks of a group are run only if its first one finds nothing wrong.
CONFIGURATION: dict[str, Check] = {
    "secret_key": configuration.secret_key,
    "allowed_hosts": configuration.allowed_hosts,
    "debug": configuration.debug,
    "production_mode": configuration.production_mode,
    "mail": configuration.mail,
    "proxies": configuration.proxies,
    "webhook_networks": configuration.webhook_networks,
    "judge_networks": configuration.judge_networks,
    "versions": configuration.versions,
    "permissions": configuration.permissions,
    "static_files": configuration.static_files,
    "artifact_root": artifacts.root_writable,
    "artifact_store": artifacts.store_answers,
    "space": artifacts.space,
}
DATABASE: dict[str, Check] = {
    "database": database.reachable,
    "database_file_system": database.file_system,
    "database_journal": database.journal,
    "database_clock": database.clock,
}
#: These read tables, so the migrations must be applied.
ROWS: dict[str, Check] = {
    "migrations": database.migrations,
    "database_writable": database.writable,
    "live_adapters": artifacts.live_adapters_intact,
    "adapters": artifacts.adapters_present,
    "model_directories": engines.model_directories,
    "projects_without_engine": engines.projects_without_engine,
    "stale_claims": work.stale_claims,
    "webhooks_late": work.webhooks_late,
    "owners": people.owners,
    "audit_trail": people.audit_trail,
    "sealed_values": people.sealed_values,
    "tokens": people.tokens_of_inactive_people,
    "share_links": people.links_of_inactive_people,
    "webhooks": people.webhooks_of_former_admins,
    "votes_and_examples": feedback.votes_and_examples,
    "splits": feedback.splits_of_prompts,
    "live_versions": feedback.live_versions,
}
BROKER: dict[str, Check] = {
    "broker": broker.reachable,
    "broker_password": broker.password,
    "broker_eviction": broker.eviction,
    "broker_clock": broker.clock,
    "workers": broker.workers,
    "beat": broker.beat,
}
ENGINES: dict[str, Check] = {
    "engines": engines.reachable,
    "engine_models": engines.base_models,
}
#: These need both.
ENGINES_AND_ROWS: dict[str, Check] = {
    "live_adapters_loaded": engines.live_adapters_loaded,
    "live_adapters_quantised": engines.live_adapters_quantised,
}


@dataclass
class Examination:
    """What was checked, what could not be, and what was found, by the name of the check."""

    checked: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    found: list[tuple[str, Problem]] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return all(problem.warning for _, problem in self.found)


def examine() -> Examination:
    """Run all checks."""
    done = Examination()
    run(CONFIGURATION, done)
    tables = gated(DATABASE, done) and gated(ROWS, done)
    gated(BROKER, done)
    run(ENGINES, done)
    run(ENGINES_AND_ROWS, done, skip=not tables)
    return done


def gated(group: dict[str, Check], done: Examination) -> bool:
    """Run a group of checks that all need what its first check finds; return whether it is there.

    After DATABASE a failure of the gate leaves the tables unread: ROWS is skipped as a whole.
    """
    gate, *rest = group
    run({gate: group[gate]}, done)
    passed = not any(name == gate for name, _ in done.found)
    run({name: group[name] for name in rest}, done, skip=not passed)
    if group is DATABASE and not passed:
        done.skipped += ROWS
    return passed


def run(checks: dict[str, Check], done: Examination, *, skip: bool = False) -> None:
    """Run these checks, or note that they were skipped. A check that fails is a finding."""
    for name, check in checks.items():
        if skip:
            done.skipped.append(name)
            continue
        done.checked.append(name)
        done.found += [(name, problem) for problem in safely(check)]


def safely(check: Check) -> Iterator[Problem]:
    """Yield what a check finds, or the error that ended it: the other checks go on."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001, RUF100 - any error of a check is worth a look
        yield Problem(
            f"The check could not be completed: {type(error).__name__}: {error}.",
            "Fix the other findings first; report it as a bug if it stays.",
        )
