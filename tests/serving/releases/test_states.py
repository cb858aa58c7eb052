"""Any order of promotions, rollbacks and discards, also by requests that began before others."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from feedback_app.accounts.models import User
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.serving.models import Release
from feedback_app.serving.releases.services import release_promote, release_rollback
from feedback_app.training.models import Adapter
from feedback_app.training.registry.services import adapter_discard, adapter_restore
from feedback_app.web.errors import UserError
from tests.served import MakeAdapter
from tests.state_machine import EXAMPLES, DatabaseMachine, run_machine

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
NUMBERS = st.integers(1, 3)
#: Whether a request looked at the rows before others changed them.
LATE = st.booleans()


@EXAMPLES
def test_one_live_version_that_is_usable(
    served: Project, make_adapter: MakeAdapter, admin: User, examples: int
) -> None:
    names = {n: make_adapter(n, gate_won=n != 3).name for n in (1, 2, 3)}
    numbers = {name: number for number, name in names.items()} | {BASE_VERSION: 0}

    class Releases(DatabaseMachine):
        def __init__(self) -> None:
            super().__init__()
            self.timeline: list[int] = []
            self.discarded: set[int] = set()
            self.read()

        def read(self) -> None:
            """Read the rows that late requests use."""
            self.project = Project.objects.get(pk=served.pk)
            self.adapters = {
                numbers[adapter.name]: adapter
                for adapter in Adapter.objects.select_related("project")
            }

        @property
        def live(self) -> int:
            return self.timeline[-1] if self.timeline else 0

        @rule()
        def request_begins(self) -> None:
            self.read()

        @rule(number=st.integers(0, 3), late=LATE, reason=st.sampled_from(["", "Better."]))
        def promote(self, number: int, late: bool, reason: str) -> None:
            if not late:
                self.read()
            try:
                release_promote(
                    project=self.project,
                    adapter=self.adapters[number] if number else None,
                    by=admin,
                    reason=reason,
                )
            except UserError:
                unknown = number == 3 and not reason and number not in self.timeline
                assert late or number == self.live or number in self.discarded or unknown
            else:
                assert number not in self.discarded
                assert number != 3 or reason or number in self.timeline
                self.timeline.append(number)

        @rule(late=LATE)
        def roll_back(self, late: bool) -> None:
            if not late:
                self.read()
            try:
                release = release_rollback(project=self.project, by=admin, reason="Worse.")
            except UserError:
                assert late or self.live == 0
            else:
                number = numbers[release.version]
                assert number not in self.discarded
                assert number == 0 or number in self.timeline
                self.timeline.append(number)

        @rule(number=NUMBERS, late=LATE)
        def discard(self, number: int, late: bool) -> None:
            if not late:
                self.read()
            try:
                adapter_discard(adapter=self.adapters[number], by=admin)
            except UserError:
                assert late or number == self.live
            else:
                assert number != self.live, "a live version was discarded"
                self.discarded.add(number)

        @rule(number=NUMBERS)
        def restore(self, number: int) -> None:
            adapter_restore(adapter=self.adapters[number], by=admin)
            self.discarded.discard(number)

        def name(self, number: int) -> str:
            return names.get(number, BASE_VERSION)

        @invariant()
        def rows_agree(self) -> None:
            assert Project.objects.get(pk=served.pk).live_version == self.name(self.live)
            rows = list(Release.objects.select_related("adapter").order_by("pk"))
            assert [numbers[row.version] for row in rows] == self.timeline
            assert [row.live for row in rows] == [False] * (len(rows) - 1) + [True] * bool(rows)
            assert all((row.until is None) == row.live for row in rows)
            gone = Adapter.objects.exclude(discarded_at=None).values_list("name", flat=True)
            assert {numbers[name] for name in gone} == self.discarded
            assert self.live not in self.discarded

    run_machine(Releases, examples=examples, steps=20)
