"""What a component raises while it is restored becomes an error of ckptfmt's, which names it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ckptfmt._escaping import describe_error
from ckptfmt.errors import CkptfmtError, RestoreError

__all__ = ["named_when_compared", "named_when_restored"]


@contextmanager
def named_when_compared(path: str, component: str) -> Iterator[None]:
    """Turn what code of a component raises into an error that names it, before anything is changed.

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
            f"{path}: component {component!r} raised {describe_error(error)}, when it was compared with its state in "
            "the checkpoint; nothing was changed"
        )
        raise RestoreError(message, path, component) from error


@contextmanager
def named_when_restored(path: str, component: str, changed: Sequence[str]) -> Iterator[None]:
    """Turn what code of a component raises while it takes its state into an error that names it.

    Args:
        path: The checkpoint.
        component: Name of the component.
        changed: Names of the components that are no longer as they were, this one among them.

    Raises:
        RestoreError: It raised.
    """
    try:
        yield
    except Exception as error:
        message = (
            f"{path}: component {component!r} raised {describe_error(error)}, when it was restored; changed so far, "
            f"perhaps in part: {', '.join(changed)}; do not train on with them, but build them anew"
        )
        raise RestoreError(message, path, component, changed) from error
