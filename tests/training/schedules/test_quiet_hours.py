"""Quiet hours by the clock on the wall, also on days that have 23 or 25 hours."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.training.schedules.quiet_hours import QuietHours

BERLIN = ZoneInfo("Europe/Berlin")
#: Clocks change by half an hour there, and by 0:15 to the hour in some zones that once were.
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")


def quiet(start: str, end: str, zone: ZoneInfo = BERLIN) -> QuietHours:
    return QuietHours(dt.time.fromisoformat(start), dt.time.fromisoformat(end), zone)


def at(text: str, *, fold: int = 0, zone: ZoneInfo = BERLIN) -> dt.datetime:
    """Return the UTC moment of a time on the wall."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("hours", "moment", "over"),
    [
        (("22:00", "07:00"), "2026-11-30 23:00", "2026-12-01 07:00"),
        (("22:00", "07:00"), "2026-11-30 06:59", "2026-11-30 07:00"),
        (("22:00", "07:00"), "2026-11-30 07:00", "2026-11-30 07:00"),
        (("09:00", "17:30"), "2026-11-30 12:00", "2026-11-30 17:30"),
        (("09:00", "17:30"), "2026-11-30 18:00", "2026-11-30 18:00"),
        # the night of 28 March has 23 hours, that of 24 October 25
        (("22:00", "07:00"), "2026-03-28 23:00", "2026-03-29 07:00"),
        (("22:00", "07:00"), "2026-10-24 23:00", "2026-10-25 07:00"),
        # 2:30 does not exist that night: clocks go from 2 to 3
        (("22:00", "02:30"), "2026-03-28 23:00", "2026-03-29 03:00"),
        (("02:10", "02:50"), "2026-03-29 03:00", "2026-03-29 03:00"),
        # it exists twice that night: quiet hours that begin the day before end with the first
        (("22:00", "02:30"), "2026-10-24 23:00", "2026-10-25 02:30"),
    ],
)
def test_quiet_hours_are_over(hours: tuple[str, str], moment: str, over: str) -> None:
    assert quiet(*hours).over(at(moment)) == at(over)


def test_hour_that_is_repeated_is_quiet_both_times() -> None:
    hours = quiet("02:00", "02:30")
    for fold in (0, 1):
        assert hours.include(at("2026-10-25 02:15", fold=fold))
        assert hours.over(at("2026-10-25 02:15", fold=fold)) == at("2026-10-25 02:30", fold=fold)
        assert not hours.include(at("2026-10-25 02:45", fold=fold))


TIMES = st.times().map(lambda time: time.replace(second=0, microsecond=0))
MOMENTS = st.integers(0, 2 * 365 * 24 * 60).map(
    lambda minutes: dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=minutes)
)


@given(TIMES, TIMES, MOMENTS, st.sampled_from([BERLIN, LORD_HOWE, ZoneInfo("America/New_York")]))
def test_end_is_the_first_moment_that_is_not_quiet(
    start: dt.time, end: dt.time, moment: dt.datetime, zone: ZoneInfo
) -> None:
    if start == end:
        return
    hours = QuietHours(start, end, zone)
    over = hours.over(moment)
    assert over >= moment
    assert not hours.include(over)
    if over > moment:
        assert hours.include(moment)
        assert over - moment <= dt.timedelta(hours=25)
        # and not one minute too late
        assert hours.include(max(moment, over - dt.timedelta(minutes=1)))
