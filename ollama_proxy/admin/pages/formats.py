"""How numbers, sizes and times are written in pages; filters of the templates. None
is written as a dash."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from markupsafe import Markup

from ollama_proxy.admin.pages.language import gettext, ngettext

#: What stands for a value that is not known.
DASH = "–"

#: Between groups of digits, and between a number and its unit: no line break, and not too wide.
_NARROW, _SPACE = "\u202f", "\u00a0"

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_LONG_TIMES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def number(value: float | None, digits: int = 0) -> str:
    """1 234 567, or 1 234.5 with one digit."""
    return DASH if value is None else f"{value:,.{digits}f}".replace(",", _NARROW)


def bytes_(value: float | None) -> str:
    """A size in decimal units, as Ollama writes it: 4.7 GB, 274 MB."""
    if value is None:
        return DASH
    scaled, unit = float(value), 0
    while scaled >= 1000 and unit < len(_SIZES) - 1:
        scaled, unit = scaled / 1000, unit + 1
    digits = 1 if scaled < 10 and scaled != math.trunc(scaled) else 0
    # Whole numbers are cut, not rounded: Ollama shows 274.9 MB as 274 MB.
    return f"{scaled if digits else math.trunc(scaled):.{digits}f}{_SPACE}{_SIZES[unit]}"


def seconds(value: float | None) -> str:
    """A time in two units at most: 420 ms, 4.2 s, 3 min 20 s, 2 d 4 h."""
    if value is None:
        return DASH
    if value < 0.9995:
        return f"{value * 1000:.0f}{_SPACE}ms"
    if value < 9.95:
        return f"{value:.1f}{_SPACE}s"
    whole, parts = round(value), list[str]()
    first = next(index for index, (size, _) in enumerate(_LONG_TIMES) if whole >= size)
    for size, unit in _LONG_TIMES[first : first + 2]:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{_SPACE}{unit}")
    return _SPACE.join(parts)


def milliseconds(value: float | None) -> str:
    """The same of a number of milliseconds."""
    return seconds(None if value is None else value / 1000)


def money(value: float | None, currency: str = "") -> str:
    """An amount with two digits, or with two that are not zero if it is less than a cent:
    12.40 EUR, 0.0042 EUR."""
    if value is None:
        return DASH
    small = 0 < abs(value) < 0.01
    digits = min(1 - math.floor(math.log10(abs(value))), 8) if small else 2
    return f"{number(value, digits)}{_SPACE}{currency}" if currency else number(value, digits)


def time(value: datetime | str | float | None) -> Markup | str:
    """A <time> in UTC, which page.js shows in the zone of the reader. Takes ISO 8601,
    or seconds since 1970."""
    moment = _read_time(value)
    return DASH if moment is None else _element(moment, f"{moment:%Y-%m-%d %H:%M:%S} UTC")


def ago(value: datetime | str | float | None, now: datetime | None = None) -> Markup | str:
    """A <time> that says how long ago that was, which page.js keeps up to date."""
    moment = _read_time(value)
    if moment is None:
        return DASH
    passed = int(((now or datetime.now(UTC)) - moment).total_seconds())
    if passed < 60:
        text = gettext("just now") if passed >= 0 else gettext("soon")
    elif passed < 3_600:
        minutes = passed // 60
        text = ngettext("%(num)s minute ago", "%(num)s minutes ago", minutes, num=minutes)
    elif passed < 86_400:
        hours = passed // 3_600
        text = ngettext("%(num)s hour ago", "%(num)s hours ago", hours, num=hours)
    else:
        days = passed // 86_400
        text = ngettext("%(num)s day ago", "%(num)s days ago", days, num=days)
    return _element(moment, text, Markup(" data-ago"))


def _element(moment: datetime, text: str, attribute: str = "") -> Markup:
    iso = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}"{}>{}</time>').format(iso, attribute, text)


def _read_time(value: datetime | str | float | None) -> datetime | None:
    """In UTC; a time without a zone is taken as UTC."""
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


#: By their names in templates.
FILTERS = {
    "number": number,
    "bytes": bytes_,
    "seconds": seconds,
    "milliseconds": milliseconds,
    "money": money,
    "time": time,
    "ago": ago,
}
