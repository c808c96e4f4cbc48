"""Types of option values that people type: sizes (`200GB`), times (`7d`), lists of names (`net,ema`)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

__all__ = ["DURATION", "NAMES", "SIZE", "parse_duration", "parse_size"]

_SIZES = {"": 1, "b": 1, **{letter: 1000**power for power, letter in enumerate("kmgtp", 1)}}
_SIZES |= {f"{letter}b": nbytes for letter, nbytes in list(_SIZES.items()) if letter not in ("", "b")}
_SIZES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_LONGEST_DAYS = 365_000


def parse_size(text: str) -> int | None:
    """Return a size in bytes, or None if `text` is not one. `200GB` is 200 * 1000**3, `200GiB` is 200 * 1024**3."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = _SIZES.get(match[2].lower()) if match else None
    return int(float(match[1]) * unit) if match and unit is not None and len(match[1]) < 20 else None


def parse_duration(text: str) -> timedelta | None:
    """Return a duration, or None if `text` is not one. Units: `s`, `min`, `h`, `d`, `w`."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = _SECONDS.get(match[2].lower()) if match else None
    if match is None or unit is None or len(match[1]) > 12:
        return None
    seconds = float(match[1]) * unit
    return timedelta(seconds=seconds) if seconds <= _LONGEST_DAYS * 86_400 else None


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the size in bytes."""
        size = parse_size(value) if isinstance(value, str) else value
        if not size:
            self.fail(f"{value!r} is not a size; write 200GB, 1.5TiB or a number of bytes", param, ctx)
        return int(size)


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration."""
        duration = parse_duration(value) if isinstance(value, str) else value
        if not isinstance(duration, timedelta) or not duration:
            self.fail(f"{value!r} is not a duration; write 7d, 12h, 30min or 2w", param, ctx)
        return duration


class _Names(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    name = "names"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click's signature
        ctx: click.Context | None,  # noqa: ARG002 - click's signature
    ) -> tuple[str, ...]:
        """Return the names between the commas."""
        return tuple(name for name in value.split(",") if name) if isinstance(value, str) else tuple(value)


SIZE = _Size()
DURATION = _Duration()
NAMES = _Names()
