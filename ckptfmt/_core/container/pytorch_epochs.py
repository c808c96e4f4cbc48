"""How many epochs a state of the documented loop has behind it.

PyTorch's documentation saves `{"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}` at the
end of each epoch, and starts again with `epoch + 1`. So an `epoch` of e says that e + 1 epochs are finished, and that
is what the metadata of a checkpoint count (spec 5.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

__all__ = ["epochs_finished"]

_EPOCH = "epoch"
_MOST = 1 << 62


def epochs_finished(state: object) -> int | None:
    """Return how many epochs are finished according to a state; None unless it is one of the documented loop.

    It is one if it is a mapping with an integer from 0 on as `epoch`, NumPy's included, beside at least one mapping.
    """
    if not isinstance(state, Mapping) or not any(isinstance(part, Mapping) for part in state.values()):
        return None
    last = state.get(_EPOCH)
    if isinstance(last, bool) or not isinstance(last, Integral):
        return None
    return int(last) + 1 if 0 <= int(last) < _MOST else None
