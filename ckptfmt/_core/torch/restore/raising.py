"""Conversion of exceptions from components during a restore to a RestoreError that names the component."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ckptfmt._escaping import describe_error
from ckptfmt.errors import CkptfmtError, RestoreError

__all__ = ["named_when_compared", "named_when_restored"]


@contextmanager
def named_when_compared(path: str, component: str) -> Iterator[None]:
    """Convert an exception from a component's code to an error that names it, before anything is changed.

    Args:
        path: The checkpoint.
        component: Name of the component.

    Raises:
        RestoreError: It raised.
    """
    try:
        yield
    except CkptfmtError:
        raise
    except Exception as error:
        message = (
            f"{path}: component {component!r} raised {describe_error(error)} when compared with its state in "
            "the checkpoint; nothing was changed"
        )
        raise RestoreError(message, path, component) from error


@contextmanager
def named_when_restored(path: str, component: str, changed: Sequence[str]) -> Iterator[None]:
    """Convert an exception from a component that loads its state to an error that names it.

    Args:
        path: The checkpoint.
        component: Name of the component.
        changed: Names of the components changed so far, including this one.

    Raises:
        RestoreError: It raised.
    """
    try:
        yield
    except Exception as error:
        message = (
            f"{path}: component {component!r} raised {describe_error(error)} during its restore; changed so far, "
            f"perhaps in part: {', '.join(changed)}; do not train with them; rebuild them"
        )
        raise RestoreError(message, path, component, changed) from error
