"""What happens to the web's connections to PostgreSQL between two requests."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DataError, connection, connections

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL"),
]


@pytest.fixture
def idle() -> Iterator[Any]:
    """A connection as a request leaves it, due to be looked at by the next one."""
    found: Any = connections.create_connection("default")
    found.connect()
    found.health_check_done = False
    yield found
    found.close()


def served_by(database: Any) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_good_connection_is_kept_and_not_asked(idle: Any) -> None:
    before = idle.connection.info.backend_pid
    # whatever it was asked last, the server still knows
    asked = "SELECT query FROM pg_stat_activity WHERE pid = %s"
    idle.connection.execute("SELECT 'the last request'")

    idle.close_if_health_check_failed()

    with connection.cursor() as cursor:
        cursor.execute(asked, [before])
        assert cursor.fetchone() == ("SELECT 'the last request'",)
    assert served_by(idle) == before


def test_connection_that_the_server_has_ended_is_replaced(idle: Any) -> None:
    ended = served_by(idle)
    idle.health_check_done = False
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [ended])
        assert cursor.fetchone() == (True,)

    assert served_by(idle) != ended


def test_connection_is_asked_after_an_error_and_inside_a_transaction(idle: Any) -> None:
    idle.errors_occurred = True
    assert idle.is_usable()
    idle.set_autocommit(False)
    with pytest.raises(DataError, match="division by zero"):
        idle.cursor().execute("SELECT 1 / 0")

    assert not idle.is_usable(), "its transaction is lost"


def test_planned_statement_outlives_errors_and_its_connection(idle: Any) -> None:
    half = "SELECT 10 / %s"

    def ask(number: int) -> tuple[Any, ...]:
        with idle.cursor_planned(half) as cursor:
            cursor.execute(half, [number])
            found: tuple[Any, ...] = cursor.fetchone()
            return found

    plans = "SELECT SUM(generic_plans + custom_plans) FROM pg_prepared_statements"
    assert [ask(2), ask(5)] == [(5,), (2,)]
    assert idle.connection.execute(plans).fetchone() == (2,), "one plan, used twice"
    idle.set_autocommit(False)
    with pytest.raises(DataError, match="division by zero"):
        ask(0)
    idle.rollback()
    idle.set_autocommit(True)
    assert ask(2) == (5,)
    idle.close()
    assert ask(5) == (2,)
