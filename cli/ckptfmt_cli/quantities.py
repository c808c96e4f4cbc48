"""Quantities that people type: `200GB`, `7d`."""

from __future__ import annotations

import re
from datetime import timedelta

import click

__all__ = ["parse_size", "parse_span", "size_option", "span_option"]

_SIZES = {"": 1, "b": 1, **{letter: 1000**power for power, letter in enumerate("kmgtp", 1)}}
_SIZES |= {f"{letter}b": nbytes for letter, nbytes in list(_SIZES.items()) if letter not in ("", "b")}
_SIZES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}
_SPANS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_LONGEST_DAYS = 365_000


def parse_size(text: str) -> int | None:
    """Return a size in bytes; None if it is none. `200GB` is 200 * 1000**3 bytes, `200GiB` is 200 * 1024**3."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = _SIZES.get(match[2].lower()) if match else None
    return int(float(match[1]) * unit) if match and unit is not None and len(match[1]) < 20 else None


def parse_span(text: str) -> timedelta | None:
    """Return a length of time; None if it is none. Units: `s`, `min`, `h`, `d`, `w`."""
    match = _QUANTITY.fullmatch(text.strip())
    unit = _SPANS.get(match[2].lower()) if match else None
    if match is None or unit is None or len(match[1]) > 12:
        return None
    seconds = float(match[1]) * unit
    return timedelta(seconds=seconds) if seconds <= _LONGEST_DAYS * 86_400 else None


def size_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the value of an option that takes a size, in bytes: a callback for click."""
    size = None if value is None else parse_size(value)
    if value is not None and not size:
        raise click.BadParameter(f"{value!r} is not a size: write 200GB, 1.5TiB or a number of bytes", ctx, param)
    return size


def span_option(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """Return the value of an option that takes a length of time: a callback for click."""
    span = None if value is None else parse_span(value)
    if value is not None and not span:
        raise click.BadParameter(f"{value!r} is not a length of time: write 7d, 12h, 30min or 2w", ctx, param)
    return span
