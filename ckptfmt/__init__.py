"""ckptfmt: one open checkpoint format for deep-learning training.

`save`, `open` and `load` are here; `ckptfmt.torch` has the same for PyTorch, and `Checkpointer` for the
training loop. Importing this package imports no framework, and each name's module only when it is used.
"""

from typing import TYPE_CHECKING

from ckptfmt._version import __version__

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
    "PerRank",
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
    "convert",
    "export",
    "load",
    "open",
    "save",
]

if TYPE_CHECKING:
    from ckptfmt.api import load, open, save
    from ckptfmt.component import Component
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
    from ckptfmt.ops.convert import convert
    from ckptfmt.ops.export import export
    from ckptfmt.per_rank import PerRank
    from ckptfmt.reader import Checkpoint
    from ckptfmt.writer import SaveReport
else:  # a type checker that saw this `__getattr__` would let every name pass
    _ELSEWHERE = {
        "Checkpoint": "ckptfmt.reader",
        "Component": "ckptfmt.component",
        "Metadata": "ckptfmt.format.index",
        "PerRank": "ckptfmt.per_rank",
        "SaveReport": "ckptfmt.writer",
        "Typed": "ckptfmt.format.packing",
        "convert": "ckptfmt.ops.convert",
        "export": "ckptfmt.ops.export",
        "load": "ckptfmt.api",
        "open": "ckptfmt.api",
        "save": "ckptfmt.api",
    }

    def __getattr__(name: str) -> object:
        """Import a public name when it is used for the first time (PEP 562); the rest of `__all__` are errors."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_ELSEWHERE.get(name, "ckptfmt.errors")), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
