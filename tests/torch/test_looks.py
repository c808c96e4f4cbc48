"""What a component, sampler or data set merely holds is looked at without running its code, and ends no training."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ckptfmt.torch import Checkpointer


class RefusedError(Exception):
    pass


def refuse(*_: object) -> Any:
    raise RefusedError


class List(list[Any]):
    __len__ = __iter__ = __getitem__ = __repr__ = __eq__ = refuse
    __hash__ = None


class Dict(dict[Any, Any]):
    __len__ = __iter__ = __getitem__ = __repr__ = items = keys = refuse


class Tuple(tuple[Any, ...]):
    __len__ = __iter__ = __getitem__ = __repr__ = refuse


class Deque(deque[Any]):
    __len__ = __iter__ = __getitem__ = __repr__ = refuse


class Set(set[Any]):
    __len__ = __iter__ = __repr__ = __contains__ = refuse


class Int(int):
    __repr__ = __str__ = __int__ = __index__ = __eq__ = __hash__ = refuse


class Text(str):
    __repr__ = __str__ = __len__ = __iter__ = refuse
    __slots__ = ()


class Float(float):
    __repr__ = __float__ = refuse


class NoDict:
    __dict__ = property(refuse)


class NoClass:
    __class__ = property(refuse)


class NoAttributes:
    __getattr__ = __getattribute__ = refuse


class Meta(type):
    __hash__ = __eq__ = refuse
    __getattribute__ = refuse


class OfMeta(metaclass=Meta):
    pass


class Tensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise RefusedError


class Color(enum.IntEnum):
    RED = 1
    __repr__ = refuse


HELD: dict[str, Callable[[], object]] = {
    "one element of another stride": lambda: torch.ones(1, 4)[:, 0],
    "one imaginary part": lambda: torch.tensor([1 + 2j]).conj().imag,
    "many digits": lambda: 10**5000,
    "list": lambda: List([1]),
    "long list": lambda: List(range(100)),
    "dict": lambda: Dict(a=1),
    "tuple": lambda: Tuple([1]),
    "deque": lambda: Deque([1]),
    "set": lambda: Set([1]),
    "in a list": lambda: [1, *(List([2]) for _ in range(100)), 3],
    "int": lambda: Int(3),
    "text": lambda: Text("a"),
    "float": lambda: Float(1),
    "no __dict__": NoDict,
    "no __class__": NoClass,
    "no attributes": NoAttributes,
    "metaclass": lambda: type.__call__(OfMeta),
    "class with a metaclass": lambda: OfMeta,
    "tensor": lambda: torch.ones(3).as_subclass(Tensor),
    "enum": lambda: Color.RED,
    "released": lambda: released(),
}


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


class Sampler:
    def __init__(self, held: object) -> None:
        self.held = held
        self.passes = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(range(4))


class Data(Dataset[int]):
    def __init__(self, held: object) -> None:
        self.held = held
        self.reads = 0

    def __getitem__(self, index: int) -> int:
        self.reads += 1
        return index

    def __len__(self) -> int:
        return 4


class Component:
    def __init__(self, held: object) -> None:
        self.held = held

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


@pytest.mark.parametrize("name", HELD)
def test_what_is_merely_held_is_no_concern(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for stop in (3, 6):
        held = HELD[name]()
        data: DataLoader[Any] = DataLoader(Data(held), 2, sampler=Sampler(held))
        ckpt = Checkpointer(tmp_path, {"component": Component(held)}, save_interval_steps=1, signals=())
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(3):
            for _ in ckpt.batches(data):
                ckpt.step()
                if ckpt.global_step == stop:
                    break
            if ckpt.global_step == stop:
                break
        ckpt.close()
        assert ckpt.global_step == stop
        assert ckpt.last_error is None
    assert capsys.readouterr().err == ""


def test_batches_of_any_kind_are_taken(tmp_path: Path) -> None:
    batches = [torch.ones(1, 4)[:, 0], 10**5000, List([1]), Dict(a=1), [List([1]), torch.ones(3).as_subclass(Tensor)]]
    for stop in (2, len(batches)):
        ckpt = Checkpointer(tmp_path, {}, save_interval_steps=1, signals=())
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(1):
            for _ in ckpt.batches(batches):
                ckpt.step()
                if ckpt.global_step == stop:
                    break
        ckpt.close()
        assert ckpt.last_error is None


class Stage(enum.Enum):
    FIRST = 1
    SECOND = 2


class Staged(Sampler):
    """Holds a member of an Enum, which is everybody's."""

    def __iter__(self) -> Iterator[int]:
        self.held = Stage.SECOND
        return super().__iter__()


def test_a_member_of_an_enum_comes_back_by_its_name(tmp_path: Path) -> None:
    for _ in range(2):
        sampler = Staged(Stage.FIRST)
        data: DataLoader[Any] = DataLoader(Data(None), 2, sampler=sampler)
        ckpt = Checkpointer(tmp_path, {}, signals=())
        ckpt.resume(quiet=True)
        for _ in ckpt.epochs(ckpt.epoch + 1):
            for _ in ckpt.batches(data):
                assert sampler.held is Stage.SECOND
                ckpt.step()
        assert (Stage.FIRST.value, Stage.SECOND.value) == (1, 2)
