"""Files of `torch.save`, read by PyTorch's loader for weights alone: it makes tensors and plain values only."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import torch

from ckptfmt.errors import FormatError, Problem, StorageError, UnsafeInputError, error_for

__all__ = ["read_pth"]


def read_pth(path: str) -> Any:
    """Return what `torch.save` was given, in CPU memory.

    Raises:
        UnsafeInputError: The file asks for more than tensors and plain values.
        FormatError: It is not a file of `torch.save`, or it is damaged.
        StorageError: It cannot be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of old forms, of which the user is no author
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeInputError(f"{path}: {str(error).partition(chr(10))[0]}") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # PyTorch's readers raise anything on a damaged file
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> FormatError:
    what = str(error).partition("\n")[0]
    return error_for(Problem("magic", f"{path}: not a sound file of torch.save: {what}"))
