"""Any order of requests, claims, heartbeats, crashes and ends of runs follows a simple model."""

import datetime as dt

import pytest
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.services import (
    run_cancel,
    run_end,
    run_finish,
    run_request,
    run_requeue,
    run_resume,
)
from feedback_app.web.errors import UserError
from tests.state_machine import EXAMPLES, DatabaseMachine, run_machine
from tests.training.gate.reports import gate_report

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
PICKS = st.integers(0, 1_000)
LONG_AGO = dt.timedelta(days=1)


@EXAMPLES
def test_one_worker_a_run_and_one_adapter(
    voted_project: Project, admin: User, examples: int
) -> None:
    class Runs(DatabaseMachine):
        """`status` of each run by number; `owner`: the only claim whose writes may count."""

        def __init__(self) -> None:
            super().__init__()
            self.status: dict[int, str] = {}
            self.pk: dict[int, int] = {}
            self.owner: dict[int, RunClaim] = {}
            self.claims: list[tuple[int, RunClaim]] = []
            self.adapters: set[int] = set()
            self.stale: set[int] = set()

        def pick(self, pick: int) -> int | None:
            return sorted(self.status)[pick % len(self.status)] if self.status else None

        def picked_claim(self, pick: int) -> tuple[int, RunClaim, bool] | None:
            """Return any claim ever taken, and whether it still counts."""
            if not self.claims:
                return None
            number, claim = self.claims[pick % len(self.claims)]
            working = self.status[number] == Run.Status.RUNNING
            return number, claim, working and self.owner.get(number) is claim

        def active(self) -> list[int]:
            return [number for number, of in self.status.items() if of in Run.ACTIVE]

        @rule()
        def request(self) -> None:
            try:
                run = run_request(project=voted_project, by=admin)
            except UserError:
                assert self.active()
            else:
                assert not self.active()
                assert run.number == len(self.status) + 1
                self.status[run.number], self.pk[run.number] = Run.Status.QUEUED, run.pk

        @rule(pick=PICKS)
        def claim(self, pick: int) -> None:
            number = self.pick(pick)
            if number is None:
                return
            claim = run_claim(self.pk[number])
            free = self.status[number] == Run.Status.QUEUED or number in self.stale
            assert (claim is not None) == free
            if claim is not None:
                self.claims.append((number, claim))
                self.owner[number], self.status[number] = claim, Run.Status.RUNNING
                self.stale.discard(number)

        @rule(pick=PICKS)
        def worker_dies(self, pick: int) -> None:
            number = self.pick(pick)
            if number is not None and self.status[number] == Run.Status.RUNNING:
                Run.objects.filter(pk=self.pk[number]).update(
                    heartbeat_at=timezone.now() - LONG_AGO
                )
                self.stale.add(number)

        @rule(pick=PICKS)
        def heartbeat(self, pick: int) -> None:
            if found := self.picked_claim(pick):
                number, claim, counts = found
                assert claim.heartbeat() == counts
                if counts:
                    self.stale.discard(number)

        @rule(pick=PICKS)
        def finish(self, pick: int) -> None:
            if found := self.picked_claim(pick):
                number, claim, counts = found
                name = voted_project.adapter_name(number)
                adapter = run_finish(
                    claim=claim, path=name, sha256="0", report=gate_report(name), fit={}
                )
                assert (adapter is not None) == counts
                if counts:
                    self.end(number, Run.Status.SUCCEEDED)
                    self.adapters.add(number)

        @rule(pick=PICKS, status=st.sampled_from([Run.Status.FAILED, Run.Status.CANCELLED]))
        def fail(self, pick: int, status: Run.Status) -> None:
            if found := self.picked_claim(pick):
                number, claim, counts = found
                run_end(claim=claim, status=status, error="why")
                if counts:
                    self.end(number, status)

        @rule(pick=PICKS)
        def requeue(self, pick: int) -> None:
            if found := self.picked_claim(pick):
                number, claim, counts = found
                run_requeue(claim=claim, why="stopped")
                if counts:
                    self.end(number, Run.Status.QUEUED)

        @rule(pick=PICKS)
        def cancel(self, pick: int) -> None:
            number = self.pick(pick)
            if number is None:
                return
            run = Run.objects.select_related("project").get(pk=self.pk[number])
            try:
                run_cancel(run=run, by=admin)
            except UserError:
                assert self.status[number] not in Run.ACTIVE
            else:
                assert self.status[number] in Run.ACTIVE
                if self.status[number] == Run.Status.QUEUED:
                    self.end(number, Run.Status.CANCELLED)

        @rule(pick=PICKS)
        def resume(self, pick: int) -> None:
            number = self.pick(pick)
            if number is None:
                return
            run = Run.objects.select_related("project").get(pk=self.pk[number])
            ended = self.status[number] in (Run.Status.FAILED, Run.Status.CANCELLED)
            try:
                run_resume(run=run, by=admin)
            except UserError:
                assert not ended or self.active()
            else:
                assert ended
                assert not self.active()
                self.status[number] = Run.Status.QUEUED

        def end(self, number: int, status: str) -> None:
            self.status[number] = status
            self.owner.pop(number, None)
            self.stale.discard(number)

        @invariant()
        def rows_agree(self) -> None:
            assert dict(Run.objects.values_list("number", "status")) == self.status
            registered = Adapter.objects.values_list("run__number", flat=True)
            assert sorted(registered) == sorted(self.adapters)
            assert len(self.active()) <= 1

    run_machine(Runs, examples=examples)
