"""Tables as a terminal shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["readable", "show", "show_json", "show_pairs"]


def show(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print columns as wide as they need to be; the last one is not padded."""
    lines = [list(columns), *([readable(name, row[name]) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def show_pairs(pairs: Mapping[str, Any]) -> None:
    """Print a name and its value a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        print(f"  {name:<{width}}  {readable('', value)}".rstrip())


def show_json(value: Any) -> None:
    """Print a value for other programs."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def readable(column: str, value: Any) -> str:
    """A value as a table shows it: a size in bytes as ``"1.5 MB"``, an age in seconds as ``"3 d"``."""
    if column == "size":
        return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"
    if column == "age":
        for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
            if value >= seconds:
                return f"{value / seconds:.0f} {unit}"
        return f"{value:.0f} s"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "defaults"
    return '""' if value == "" else str(value)
