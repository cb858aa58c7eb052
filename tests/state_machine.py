"""State machines of hypothesis on a database: each example is rolled back."""

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


class DatabaseMachine(RuleBasedStateMachine):
    """A machine whose rules run in a transaction that its end rolls back."""

    def __init__(self) -> None:
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.transaction.__exit__(None, None, None)


#: How many sequences of steps a machine tries: some in `make test`, many in `make test-long`.
EXAMPLES = pytest.mark.parametrize("examples", [8, pytest.param(40, marks=pytest.mark.long)])


def run_machine(machine: type[DatabaseMachine], *, examples: int, steps: int = 30) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
