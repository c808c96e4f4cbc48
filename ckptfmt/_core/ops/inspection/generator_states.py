"""States of random generators, known by their content: those of Python, NumPy and PyTorch, as programs save them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckptfmt._core.container.tensor_source import TensorSource
from ckptfmt._core.format.packing import TensorRef, Typed
from ckptfmt._core.format.trees import NUMPY_ARRAY
from ckptfmt._core.ops.report_json import integer_json

__all__ = ["generators_in", "holds_generators", "is_python_state"]

_NAMES = {
    **{name: name for name in ("python", "numpy", "torch", "cuda", "xpu", "mps")},
    "cpu": "torch",  # as the Trainer of Hugging Face calls it
    "random_state": "python",  # and Accelerate
    "numpy_random_seed": "numpy",
    "torch_manual_seed": "torch",
    "torch_cuda_manual_seed": "cuda",
    "torch_xpu_manual_seed": "xpu",
}
_ON_DEVICES = frozenset({"cuda", "xpu", "mps"})
_PYTHON_WORDS = 625
_TORCH_STATES: dict[tuple[int, ...], str] = {
    (5056,): "torch",
    (16,): "cuda",
}  # bytes of a Mersenne Twister; seed and offset of Philox


def holds_generators(tree: object, tensors: Mapping[str, TensorSource]) -> bool:
    """Return whether a tree is the state of a random generator, or of several by name.

    Args:
        tree: The tree.
        tensors: The tensors in it, by name.
    """
    if isinstance(tree, dict):
        return len(_NAMES.keys() & tree.keys()) > 1 or _wrapped(tree) is not None
    if isinstance(tree, list) and tree and all(isinstance(item, TensorRef) for item in tree):
        return all(_of_content(item, tensors) is not None for item in tree)
    return _of_content(tree, tensors) is not None


def is_python_state(tree: object) -> bool:
    """Return whether a tree is what `random.getstate()` returns."""
    match tree:
        case (int(), (list() | tuple()) as words, _) if isinstance(tree, list | tuple):
            return len(words) == _PYTHON_WORDS and all(type(word) is int for word in words)
    return False


def generators_in(tree: object, tensors: Mapping[str, TensorSource]) -> Iterator[str]:
    """Yield the names of the generators in a tree, such as `numpy MT19937` and `cuda of 2 devices`."""
    if isinstance(tree, dict) and (kind := _wrapped(tree)) is not None:
        yield kind
    elif isinstance(tree, dict):
        if not _NAMES.keys() & tree.keys() and all(isinstance(value, dict) for value in tree.values()):
            for value in tree.values():
                yield from generators_in(value, tensors)
            return
        for name, state in tree.items():
            yield _named(name, state)
    elif (found := _of_content(tree, tensors)) is not None:
        yield found
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from generators_in(item, tensors)


def _named(name: object, state: object) -> str:
    if not isinstance(name, str):
        return repr(integer_json(name) if isinstance(name, int) else name)
    known = _NAMES.get(name, name)
    if known == "numpy" and (kind := _bit_generator(state)) is not None:
        return f"numpy {kind}"
    if known in _ON_DEVICES and isinstance(state, list):
        return f"{known} of {len(state)} device{'' if len(state) == 1 else 's'}"
    return known


def _of_content(tree: object, tensors: Mapping[str, TensorSource]) -> str | None:
    """Return which generator a tree alone is the state of; None for anything else."""
    if isinstance(tree, TensorRef):
        tensor = tensors.get(tree.name)
        return None if tensor is None or tensor.dtype != "U8" else _TORCH_STATES.get(tensor.shape)
    if is_python_state(tree):
        return "python"
    kind = _bit_generator(tree)
    return None if kind is None else f"numpy {kind}"


def _bit_generator(state: object) -> str | None:
    match state:
        case {"bit_generator": str(kind), "state": _}:
            return kind
        case (str(kind), Typed(name, _), int(), int(), _) if name == NUMPY_ARRAY and isinstance(state, list | tuple):
            return kind
    return None


def _wrapped(tree: Mapping[object, object]) -> str | None:
    """Return the kind of generator of which a `Checkpointer` saved the state as a component."""
    match tree:
        case {"kind": str(kind), "state": _} if len(tree) == 2:
            return kind
    return _bit_generator(tree) and f"numpy {_bit_generator(tree)}"
