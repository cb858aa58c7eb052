"""Times of day at which no run starts, by the clock on the wall of a time zone."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

#: Clocks are changed by two hours at most, and at a full minute.
LARGEST_CHANGE = dt.timedelta(hours=2)
MINUTE = dt.timedelta(minutes=1)


@dataclass(frozen=True)
class QuietHours:
    """From `start` until `end`, also past midnight; they differ. `end` is no part of them."""

    start: dt.time
    end: dt.time
    zone: ZoneInfo

    def include(self, moment: dt.datetime) -> bool:
        """Return whether a moment is in the quiet hours.

        An hour that the clocks repeat is quiet both times, one that they skip never.
        """
        time = moment.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= time < self.end
        return time >= self.start or time < self.end

    def over(self, moment: dt.datetime) -> dt.datetime:
        """Return when the quiet hours that include `moment` are over; `moment` outside of them."""
        if not self.include(moment):
            return moment
        local = moment.astimezone(self.zone)
        days = 1 if self.start > self.end and local.time() >= self.start else 0
        day = local.date() + dt.timedelta(days=days)
        # in an hour that the clocks repeat: the same one of the two
        end = dt.datetime.combine(day, self.end, self.zone).replace(fold=0 if days else local.fold)
        found = end.astimezone(dt.UTC)
        if found.astimezone(self.zone).time() == self.end:
            return found
        # the clocks skip this time: the first minute after the change
        found -= LARGEST_CHANGE
        while found < moment or self.include(found):
            found += MINUTE
        return found
