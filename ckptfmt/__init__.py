"""ckptfmt: one open checkpoint format for deep-learning training.

`save`, `open` and `load` are here; `ckptfmt.torch` has the same for PyTorch, and `Checkpointer` for training loops.
Importing this package imports no framework; the module of a name is imported when the name is first used.
"""

from typing import TYPE_CHECKING

from ckptfmt._version import __version__

__all__ = [
    "ChangedError",
    "Checkpoint",
    "CkptfmtError",
    "Component",
    "ConvertReport",
    "ExportError",
    "ForeignFileError",
    "FormatError",
    "HeldError",
    "IntegrityError",
    "LeaseError",
    "LimitError",
    "LockedError",
    "Metadata",
    "MismatchError",
    "MissingExtraError",
    "NotFoundError",
    "PackError",
    "PerRank",
    "Problem",
    "RankError",
    "ReadError",
    "RestoreError",
    "ResumeError",
    "SaveError",
    "SaveReport",
    "StateError",
    "StorageError",
    "SupersededError",
    "TensorEntry",
    "TruncatedError",
    "Typed",
    "UndecidedError",
    "UnsafeInputError",
    "UnsupportedFileError",
    "UnsupportedVersionError",
    "UsageError",
    "__version__",
    "convert",
    "export",
    "load",
    "open",
    "save",
]

if TYPE_CHECKING:
    from ckptfmt._core.api import load, open, save
    from ckptfmt._core.container.component import Component
    from ckptfmt._core.container.per_rank import PerRank
    from ckptfmt._core.container.reader import Checkpoint
    from ckptfmt._core.container.writer import SaveReport
    from ckptfmt._core.format.index import Metadata
    from ckptfmt._core.format.packing import Typed
    from ckptfmt._core.format.tensors import TensorEntry
    from ckptfmt._core.ops.conversion.convert import convert
    from ckptfmt._core.ops.conversion.export import export
    from ckptfmt._core.ops.conversion.report import ConvertReport
    from ckptfmt.errors import (
        ChangedError,
        CkptfmtError,
        ExportError,
        ForeignFileError,
        FormatError,
        HeldError,
        IntegrityError,
        LeaseError,
        LimitError,
        LockedError,
        MismatchError,
        MissingExtraError,
        NotFoundError,
        PackError,
        Problem,
        RankError,
        ReadError,
        RestoreError,
        ResumeError,
        SaveError,
        StateError,
        StorageError,
        SupersededError,
        TruncatedError,
        UndecidedError,
        UnsafeInputError,
        UnsupportedFileError,
        UnsupportedVersionError,
        UsageError,
    )
else:  # a type checker that saw this `__getattr__` would let every name pass
    _ELSEWHERE = {
        "Checkpoint": "ckptfmt._core.container.reader",
        "Component": "ckptfmt._core.container.component",
        "ConvertReport": "ckptfmt._core.ops.conversion.report",
        "Metadata": "ckptfmt._core.format.index",
        "PerRank": "ckptfmt._core.container.per_rank",
        "SaveReport": "ckptfmt._core.container.writer",
        "TensorEntry": "ckptfmt._core.format.tensors",
        "Typed": "ckptfmt._core.format.packing",
        "convert": "ckptfmt._core.ops.conversion.convert",
        "export": "ckptfmt._core.ops.conversion.export",
        "load": "ckptfmt._core.api",
        "open": "ckptfmt._core.api",
        "save": "ckptfmt._core.api",
    }

    def __getattr__(name: str) -> object:
        """Import a public name when it is used for the first time (PEP 562); the rest of `__all__` are errors."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module
        from types import FunctionType

        value = getattr(import_module(_ELSEWHERE.get(name, "ckptfmt.errors")), name)
        if isinstance(value, FunctionType):
            value.__module__ = __name__  # its public home. A class keeps its own, by which its source is found
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
