"""ckptfmt: one open checkpoint format for deep-learning training.

`save`, `open` and `load` are here; `ckptfmt.torch` has the same for PyTorch, and `Checkpointer` for the
training loop. Importing this package imports no framework.
"""

from ckptfmt._version import __version__
from ckptfmt.api import load, open, save
from ckptfmt.errors import (
    CkptfmtError,
    FormatError,
    IntegrityError,
    LimitError,
    MismatchError,
    MissingExtraError,
    Problem,
    StateError,
    StorageError,
    TensorNotFoundError,
    TruncatedError,
    UnsafeInputError,
    UnsupportedVersionError,
)
from ckptfmt.format.index import Metadata
from ckptfmt.format.packing import Typed
from ckptfmt.reader import Checkpoint, Component
from ckptfmt.writer import SaveReport

__all__ = [
    "Checkpoint",
    "CkptfmtError",
    "Component",
    "FormatError",
    "IntegrityError",
    "LimitError",
    "Metadata",
    "MismatchError",
    "MissingExtraError",
    "Problem",
    "SaveReport",
    "StateError",
    "StorageError",
    "TensorNotFoundError",
    "TruncatedError",
    "Typed",
    "UnsafeInputError",
    "UnsupportedVersionError",
    "__version__",
    "load",
    "open",
    "save",
]
