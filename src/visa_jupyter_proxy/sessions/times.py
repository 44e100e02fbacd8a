"""Moments, days and durations, as people write and read them."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

_SPANS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

_WRITE: Final = (
    "write a date such as 2025-01-31, a date and time such as 2025-01-31T14:00, "
    "or how long ago: 90m, 24h, 7d, 4w"
)


class Zone:
    """Where it is what time. Without a name, the system's own zone."""

    def __init__(self, name: str | None) -> None:
        self._zone: tzinfo | None = None if name is None else ZoneInfo(name)

    def moment(self, text: str, now: float) -> float:
        """Read a moment; `ValueError` says what could be written."""
        if ago := re.fullmatch(r"([0-9]{1,6})([mhdw])", text):
            return now - int(ago[1]) * _SPANS[ago[2]]
        try:
            moment = datetime.fromisoformat(text)
            return (self._here(moment) if moment.tzinfo is None else moment).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(_WRITE) from None

    def show(self, at: float) -> str:
        """Write a moment as in RFC 3339, to the second."""
        return self._at(at).isoformat(timespec="seconds")

    def days(self, first: float, last: float) -> Iterator[tuple[str, float, float]]:
        """Give the days from one moment to the other, both included: name, beginning, end.

        A day begins at midnight here; so some have 23 hours, or 25.
        """
        day = self._at(first).date()
        begins = self._midnight(day)
        while begins <= last:
            ends = self._midnight(day + timedelta(days=1))
            yield day.isoformat(), begins, ends
            day, begins = day + timedelta(days=1), ends

    def _at(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, UTC).astimezone(self._zone)

    def _here(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=self._zone) if self._zone is not None else moment.astimezone()

    def _midnight(self, day: date) -> float:
        return self._here(datetime(day.year, day.month, day.day)).timestamp()  # noqa: DTZ001 -- `_here` gives it one


def duration(seconds: float) -> str:
    """Write a duration for people: 1:02:03 is an hour, two minutes, three seconds; days count as hours."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
