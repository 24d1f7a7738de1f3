"""Numbers as a person reads them: three digits and the unit that fits."""

from __future__ import annotations

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_COUNTS = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))


def seconds_text(seconds: float) -> str:
    """`0.0123` is `12.3 ms`."""
    return _scaled(seconds, _TIMES, " ") if seconds else "0 s"


def bytes_text(size_bytes: float) -> str:
    """`58_720_256` is `58.7 MB`; 1 GB = 1e9 bytes."""
    return _scaled(size_bytes, _SIZES, " ") if size_bytes else "0 B"


def count_text(count: float) -> str:
    """`1234567` is `1.23 M`."""
    return _scaled(count, _COUNTS, "") if count else "0"


def whole_text(count: int) -> str:
    """`42` is `42`, `1234567` is `1.23 M`."""
    return str(count) if abs(count) < 1000 else count_text(count)


def rate_text(per_second: float) -> str:
    """As `count_text`, but two digits of what is below 0.1: a slow thing is never `0.00` a second."""
    return f"{per_second:.2g}" if 0 < abs(per_second) < 0.1 else count_text(per_second)


def full_rate_text(per_second: float) -> str:
    """`12345.6` is `12,346`, and what is below 100 as `rate_text` says it."""
    return f"{per_second:,.0f}" if abs(per_second) >= 100 else rate_text(per_second)


def parameters_text(parameters: float) -> str:
    """`671e9` is `671.0 B`, as model cards say it."""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def share_text(share: float) -> str:
    """`0.0512` is `5.1 %`; `0.9876` is `98.8 %`."""
    return f"{share * 100:.1f} %"


def value_text(value: float | str) -> str:
    """A value of an axis: words as they are, numbers without needless digits."""
    return value if isinstance(value, str) else f"{value:.12g}"


def time_scale(longest_seconds: float) -> tuple[float, str]:
    """What to multiply seconds by, and the unit, so that an axis up to `longest_seconds` reads well."""
    for size, unit in _TIMES[:3]:
        if longest_seconds >= size:
            return 1 / size, unit
    return 1e6, "µs"


def _scaled(value: float, units: tuple[tuple[float, str], ...], space: str) -> str:
    for size, unit in units:
        # 0.9995 and more of a unit would print as 1000 of the next smaller.
        if abs(value) >= size * 0.9995:
            return f"{three_digits(value / size)}{space}{unit}"
    size, unit = units[-1]
    return f"{three_digits(value / size)}{space}{unit}"


def three_digits(value: float) -> str:
    """`1234.5` is `1,234`, `0.0712` is `0.07`: never more than fit."""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}"
