"""The day that a document bears, from a field, front matter or its path; never from clock or locale."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS = {
    month: number
    for number, month in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_ISO = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)")
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:T\d{4,6}.*)?$")
# 31 August 2021; Tue, 31 Aug 2021 09:00:00 GMT
_DAY_MONTH = re.compile(
    r"(?:[a-z]{3,9},?\s+)?(\d{1,2})(?:st|nd|rd|th)?[\s-]([a-z]{3,9})\.?,?[\s-](\d{4})(?!\d)", re.I
)
# August 31, 2021
_MONTH_DAY = re.compile(
    r"(?:[a-z]{3,9},\s+)?([a-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})(?!\d)", re.I
)
_IN_PATH = re.compile(r"(?<!\d)((?:19|20)\d{2})([-_/.])(\d{2})\2(\d{2})(?!\d)")
_SECONDS = (10**8, 10**10)


def parse_date(value: Any) -> date | None:
    """Return the day that a field's value names, or None.

    Understood are dates and times, ISO 8601, YYYY/MM/DD, YYYYMMDD, e-mail dates, English dates with the
    month's name, and seconds, milli-, micro- or nanoseconds since 1970 (from 1973 on). The day is the one
    written down: an offset from UTC does not move it.
    """
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if isinstance(value, str):
        return _parse_text(value.strip())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _parse_epoch(value)
    return None


def path_date(path: str) -> date | None:
    """Return the last date in a path, such as 2021-08-31-title.md or 2021/08/31/x.txt, or None."""
    if "20" not in path and "19" not in path:
        return None
    for match in reversed(list(_IN_PATH.finditer(path))):
        day = _day(match[1], match[3], match[4])
        if day is not None:
            return day
    return None


def _parse_text(text: str) -> date | None:
    if match := _ISO.match(text):
        return _day(match[1], match[3], match[4])
    if match := _COMPACT.match(text):
        return _day(match[1], match[2], match[3])
    if match := _DAY_MONTH.match(text):
        return _day(match[3], _month(match[2]), match[1])
    if match := _MONTH_DAY.match(text):
        return _day(match[3], _month(match[1]), match[2])
    if text.isascii() and text.isdigit() and len(text) < 20:
        return _parse_epoch(int(text))
    return None


def _parse_epoch(number: float) -> date | None:
    for unit in (1, 10**3, 10**6, 10**9):
        if _SECONDS[0] <= number / unit < _SECONDS[1]:
            return (_EPOCH + timedelta(seconds=number / unit)).date()
    return None


def _month(name: str) -> int:
    return _MONTHS.get(name[:3].lower(), 0)


def _day(year: str, month: str | int, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None
