"""Text of others made harmless before anybody sees it: names of files, runs, components, tensors and metrics.

Whoever writes a checkpoint chooses these names, and a terminal obeys what is in them. Imports nothing of ours.
"""

from __future__ import annotations

import re

__all__ = ["describe_error", "escape"]

# Printable for Python, and yet nothing is seen of them: two names that differ in one of these would look the same.
# They are the rest of Unicode's Default_Ignorable_Code_Point, and a blank that is no space.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def escape(text: str) -> str:
    r"""Return `text` with every character that is not seen as itself written as an escape, such as `\x1b`.

    These are control characters, line ends, marks that change the direction of writing, characters without width, and
    bytes of a file name that are not text (lone surrogates). The result neither moves a cursor nor forges a line, and
    every stream that takes Unicode takes it. To escape it once more changes nothing.
    """
    if text.isprintable() and (text.isascii() or _INVISIBLE.search(text) is None):
        return text
    return "".join(map(_escaped, text))


def describe_error(error: BaseException) -> str:
    """Return class and text of an error that anybody's code raised. Never raises, whatever the error does."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - it is anybody's code, too
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _escaped(char: str) -> str:
    if char.isprintable() and _INVISIBLE.match(char) is None:
        return char
    return char.encode("unicode_escape").decode("ascii")
