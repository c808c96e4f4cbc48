"""What every adapter has to do, as a class of tests (see `ckptfmt._core.container.adapters`).

```python
class TestMyAdapter(AdapterTests):
    dtypes = ("F32", "I64")

    @pytest.fixture
    def adapter(self):
        return MyAdapter()

    def layouts(self, tensor):
        return {"on the device": my_framework.to_device(tensor)}
```
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ckptfmt._core.container.adapter_set import AdapterSet
from ckptfmt._core.container.adapters import Adapter, TensorLeaf
from ckptfmt._core.container.planning import SMALL_BYTES, make_metadata, plan_save
from ckptfmt._core.container.reader import Checkpoint
from ckptfmt._core.container.writer import write_plan
from ckptfmt._core.format.dtypes import DTYPES
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.tensors import tensor_nbytes
from ckptfmt._core.training.saving.staging import HostStaging, Staging
from ckptfmt.errors import CkptfmtError, StateError, UnsupportedVersionError

__all__ = ["AdapterTests", "filled", "leaf_of"]

_SHAPES = ((), (1,), (0,), (7,), (3, 5), (2, 0, 4), (1, 1, 1), (2, 3, 4, 5))
# The last one has more dimensions than any framework takes. The others have no elements, but sizes that overflow.
_HOSTILE_SHAPES = ((2**31, 0), (2**62, 0, 2**62), (2**63 - 1, 0), (0, *[2**40] * 30), tuple([1] * 1000))
_SQUARE = (4, 4)
_DTYPES = sorted(DTYPES)


def filled(adapter: Adapter, dtype: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Any, bytes]:
    """Return a tensor with any bits that its dtype can have, and its elements as bytes."""
    tensor, memory = adapter.empty(dtype, shape)
    content = random.Random(seed).randbytes(len(memory))
    if dtype == "BOOL":
        content = bytes(byte & 1 for byte in content)
    memory[:] = content
    return tensor, content


def leaf_of(adapter: Adapter, tensor: object) -> TensorLeaf:
    """Return the leaf of a tensor, without its marker."""
    encoded = adapter.encode(tensor, "x")
    if isinstance(encoded, Typed) and encoded.name == adapter.marker:
        encoded = encoded.value
    assert isinstance(encoded, TensorLeaf)
    return encoded


def _is_content(leaf: TensorLeaf, content: bytes) -> bool:
    """Say whether a leaf gives these bytes, in whichever way it is asked."""
    data = leaf.read()
    assert (data.format, data.ndim) == ("B", 1)
    odd = memoryview(bytearray(len(content) + 1))[1:]  # aligned for bytes only
    leaf.copy_into(odd)
    given = [bytes(data), leaf.read_copy(), bytes(odd), b"".join(read() for read in leaf.chunks())]
    return given == [content] * len(given)


class AdapterTests:
    """Tests of an adapter. Whoever inherits them gives `dtypes` and the fixture `adapter`.

    The other attributes and methods tell what else the framework has; by default, nothing.

    Attributes:
        dtypes: Names of the dtypes of the spec's section 9 that the framework has.
        packed_dtypes: Names of those that it has for some shapes only, as their elements share bytes.
        staging: What copies a state off the framework's tensors.
    """

    dtypes: Sequence[str]
    packed_dtypes: Sequence[str] = ()
    staging: Callable[[], Staging] = HostStaging

    @pytest.fixture
    def adapter(self) -> Adapter:
        """Return the adapter."""
        raise NotImplementedError

    def layouts(self, tensor: Any) -> Mapping[str, Any]:  # noqa: ARG002 - for those who have some
        """Return, by names of your own, tensors of the same dtype, shape and elements that lie elsewhere or otherwise.

        Not contiguous, of the other byte order, on each kind of device. They share no memory with `tensor`.
        """
        return {}

    def same_tensors(self, tensor: Any) -> Mapping[str, Any]:  # noqa: ARG002 - for those who have some
        """Return, by names of your own, other objects that are the same tensor: same memory, dtype, shape, strides."""
        return {}

    def views(self, square: Any) -> Mapping[str, Any]:  # noqa: ARG002 - for those who have some
        """Return, by names of your own, tensors that share memory with a tensor of 4 x 4 and are not the same tensor.

        A part of it, its transpose, its bits as another dtype.
        """
        return {}

    def values(self) -> Mapping[str, Any]:
        """Return, by names of your own, values of the framework that are no tensors and come back as they are."""
        return {}

    def refused(self) -> Mapping[str, Any]:
        """Return, by names of your own, values of the framework that cannot be expressed."""
        return {}

    def same(self, one: Any, other: Any) -> bool:
        """Say whether two of `values` are the same."""
        return type(one) is type(other) and bool(one == other)

    # Tensors that are made

    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_a_dtype_is_there_or_refused(self, adapter: Adapter, dtype: str) -> None:
        if dtype in (*self.dtypes, *self.packed_dtypes):
            leaf = leaf_of(adapter, adapter.empty(dtype, (4,))[0])
            assert (leaf.dtype, leaf.shape) == (dtype, (4,))
        else:
            with pytest.raises(UnsupportedVersionError) as caught:
                adapter.empty(dtype, (4,))
            assert [problem.code for problem in caught.value.problems] == ["tensor-dtype"]

    @pytest.mark.parametrize("shape", _SHAPES, ids=str)
    def test_the_memory_of_a_new_tensor_is_its_elements(self, adapter: Adapter, shape: tuple[int, ...]) -> None:
        for dtype in self.dtypes:
            tensor, memory = adapter.empty(dtype, shape)
            assert (memory.format, memory.ndim, memory.readonly) == ("B", 1, False)
            assert len(memory) == tensor_nbytes(dtype, shape)
            memory[:] = content = bytes(len(memory))
            assert bytes(leaf_of(adapter, tensor).read()) == content
            tensor, content = filled(adapter, dtype, shape)
            assert bytes(leaf_of(adapter, tensor).read()) == content

    def test_the_memory_of_a_new_tensor_lives_as_long_as_either(self, adapter: Adapter) -> None:
        dtype = self.dtypes[0]
        tensor, memory = adapter.empty(dtype, (100_000,))
        memory[:] = bytes(len(memory))
        del tensor
        others = [filled(adapter, dtype, (100_000,), seed) for seed in range(4)]
        assert not any(memory)
        del memory
        assert all(bytes(leaf_of(adapter, tensor).read()) == content for tensor, content in others)

    @pytest.mark.parametrize("shape", _HOSTILE_SHAPES, ids=lambda shape: f"{len(shape)} dimensions of {max(shape)}")
    def test_a_hostile_shape_is_made_or_refused(self, adapter: Adapter, shape: tuple[int, ...]) -> None:
        for dtype in self.dtypes:
            try:
                tensor, memory = adapter.empty(dtype, shape)
            except CkptfmtError:
                continue
            assert len(memory) == tensor_nbytes(dtype, shape)
            assert leaf_of(adapter, tensor).shape == shape

    def test_a_view_is_the_memory_or_there_is_none(self, adapter: Adapter) -> None:
        for dtype in self.dtypes:
            for shape in ((3, 5), (7,)):
                content = filled(adapter, dtype, shape, seed=1)[1]
                for start in (0, 1):  # aligned for any element, and for bytes only
                    memory = memoryview(bytes(start) + content).toreadonly()[start:]
                    view = adapter.view(dtype, shape, memory)
                    if view is not None:
                        leaf = leaf_of(adapter, view)
                        assert (leaf.dtype, leaf.shape, bytes(leaf.read())) == (dtype, shape, content)

    # Tensors that are found

    @pytest.mark.parametrize("shape", [*_SHAPES, (SMALL_BYTES + 1,)], ids=str)
    def test_a_leaf_gives_its_elements_in_every_way(self, adapter: Adapter, shape: tuple[int, ...]) -> None:
        for dtype in self.dtypes:
            tensor, content = filled(adapter, dtype, shape)
            leaf = leaf_of(adapter, tensor)
            assert (leaf.dtype, leaf.shape) == (dtype, shape)
            assert _is_content(leaf, content)

    @pytest.mark.parametrize("shape", [(), (0,), (6,), (4, 6), (2, 3, 4), (300, 400)], ids=str)
    def test_elements_may_lie_in_any_way(self, adapter: Adapter, shape: tuple[int, ...]) -> None:
        for dtype in self.dtypes:
            tensor, content = filled(adapter, dtype, shape)
            for name, other in self.layouts(tensor).items():
                leaf = leaf_of(adapter, other)
                assert (leaf.dtype, leaf.shape) == (dtype, shape), name
                assert _is_content(leaf, content), name

    def test_windows_are_cut_alike_whatever_the_layout_and_cover_all(self, adapter: Adapter) -> None:
        for dtype in self.dtypes:
            tensor, content = filled(adapter, dtype, (32, 8))
            for name, one in {"itself": tensor, **self.layouts(tensor)}.items():
                leaf = leaf_of(adapter, one)
                pieces = [bytes(leaf.window(number, 64)) for number in range(len(content))]
                count = len(content) // len(pieces[0])
                assert b"".join(pieces[:count]) == content, name
                assert pieces[count : 2 * count] == pieces[:count], name  # numbers go round

    def test_memory_of_another_length_is_refused(self, adapter: Adapter) -> None:
        tensor, content = filled(adapter, self.dtypes[0], (3, 5))
        leaf = leaf_of(adapter, tensor)
        for length in (len(content) - 1, len(content) + 1, 0):
            with pytest.raises((StateError, ValueError)):
                leaf.copy_into(memoryview(bytearray(length)))

    # Which tensors are one

    def test_the_same_tensor_is_known_again(self, adapter: Adapter) -> None:
        for dtype in self.dtypes:
            for shape in ((), (3, 5)):
                tensor, _ = filled(adapter, dtype, shape)
                alias = leaf_of(adapter, tensor).alias
                for name, same in {"itself": tensor, **self.same_tensors(tensor)}.items():
                    again = leaf_of(adapter, same).alias
                    assert (again, hash(again)) == (alias, hash(alias)), name

    def test_equal_tensors_are_not_the_same(self, adapter: Adapter) -> None:
        for dtype in self.dtypes:
            for shape in ((), (0,), (3, 5)):
                tensors = [filled(adapter, dtype, shape)[0] for _ in range(3)]
                assert len({leaf_of(adapter, tensor).alias for tensor in tensors}) == 3

    def test_views_are_not_the_same(self, adapter: Adapter) -> None:
        for dtype in self.dtypes:
            square = filled(adapter, dtype, _SQUARE)[0]
            tensors = {"the tensor": square, **self.views(square)}
            aliases = {name: leaf_of(adapter, tensor).alias for name, tensor in tensors.items()}
            assert len(set(aliases.values())) == len(aliases), aliases

    # Through a file

    @pytest.mark.parametrize("codec", ["none", "zstd"])
    @pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
    def test_tensors_come_back(self, adapter: Adapter, tmp_path: Path, codec: str, nested: bool) -> None:
        made = {
            f"{dtype} {shape}": filled(adapter, dtype, shape)
            for dtype in self.dtypes
            for shape in (*_SHAPES, (SMALL_BYTES + 1,))
        }
        tensors = {name: tensor for name, (tensor, _) in made.items()}
        for name, (tensor, content) in list(made.items()):
            for layout, other in self.layouts(tensor).items():
                tensors[f"{name} {layout}"] = other
                made[f"{name} {layout}"] = (other, content)
        tree: Any = {"tensors": [tensors, 1]} if nested else tensors
        back = _round_trip(AdapterSet(adapter), {"part": tree}, tmp_path / "a.ckptfmt", codec)["part"]
        back = back["tensors"][0] if nested else back
        assert list(back) == list(tensors)
        for name, (tensor, content) in made.items():
            leaf, was = leaf_of(adapter, back[name]), leaf_of(adapter, tensor)
            assert (leaf.dtype, leaf.shape, bytes(leaf.read())) == (was.dtype, was.shape, content), name

    def test_a_shared_tensor_comes_back_as_one(self, adapter: Adapter, tmp_path: Path) -> None:
        tensor, _ = filled(adapter, self.dtypes[0], (3, 5))
        equal, _ = filled(adapter, self.dtypes[0], (3, 5))
        same = [tensor, *self.same_tensors(tensor).values()]
        state = {"part": {"same": same, "tensor": tensor, "equal": equal}}
        back = _round_trip(AdapterSet(adapter), state, tmp_path / "a.ckptfmt")["part"]
        assert all(one is back["tensor"] for one in back["same"])
        assert back["equal"] is not back["tensor"]

    def test_a_copy_is_that_of_one_moment(self, adapter: Adapter, tmp_path: Path) -> None:
        adapters = AdapterSet(adapter)
        tensors, contents, memories = [], [], []
        for dtype in self.dtypes:
            for shape in ((5,), (SMALL_BYTES + 1,)):
                tensor, memory = adapter.empty(dtype, shape)
                memory[:] = content = filled(adapter, dtype, shape, seed=2)[1]
                tensors.append(tensor)
                contents.append(content)
                memories.append(memory)
        state = {"part": tensors}
        plan = self.staging().copy(plan_save(state, adapters, metadata=make_metadata(state)))
        for memory in memories:
            memory[:] = bytes(len(memory))
        write_plan(tmp_path / "a.ckptfmt", plan)
        with Checkpoint.open(tmp_path / "a.ckptfmt", adapters) as checkpoint:
            back = checkpoint.load()["part"]
        assert [bytes(leaf_of(adapter, tensor).read()) for tensor in back] == contents

    # Everything else

    def test_other_values_come_back(self, adapter: Adapter, tmp_path: Path) -> None:
        values = self.values()
        back = _round_trip(AdapterSet(adapter), {"part": {"values": values, "n": 1}}, tmp_path / "a.ckptfmt")
        for name, value in values.items():
            assert self.same(value, back["part"]["values"][name]), name

    def test_what_cannot_be_expressed_is_refused_with_its_place(self, adapter: Adapter, tmp_path: Path) -> None:
        for name, value in self.refused().items():
            with pytest.raises(StateError) as caught:
                _round_trip(AdapterSet(adapter), {"part": {"inside": [1, value]}}, tmp_path / "a.ckptfmt")
            assert str(caught.value).startswith("part.inside[1]:"), name
        assert not list(tmp_path.iterdir())

    def test_unknown_types_and_names_are_left_to_others(self, adapter: Adapter) -> None:
        assert adapter.encode(object(), "x") is NotImplemented
        typed = Typed("of.another.program", 1)
        assert adapter.decode(typed) is typed


def _round_trip(adapters: AdapterSet, state: Any, path: Path, codec: str = "none") -> Any:
    write_plan(path, plan_save(state, adapters, metadata=make_metadata(state), codec=codec))
    with Checkpoint.open(path, adapters) as checkpoint:
        assert checkpoint.verify() == ()
        return checkpoint.load()
