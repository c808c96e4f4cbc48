"""The copy of a state in memory: of any size after any other, and exact whatever the layout of the tensors."""

from __future__ import annotations

import contextlib
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptfmt._core.container.planning import SavePlan, make_metadata, plan_save
from ckptfmt._core.torch.restore.read_targets import target_of
from ckptfmt._core.torch.saving import staging
from ckptfmt._core.torch.saving.staging import DeviceStaging
from ckptfmt._core.torch.tensors.adapter import TORCH_ADAPTERS
from ckptfmt._core.torch.tensors.cpu_copy import copy_in, copy_out

PAGE = 4096


def plan_of(state: dict[str, object]) -> SavePlan:
    return plan_save(state, TORCH_ADAPTERS, metadata=make_metadata(state))


def content_of(plan: SavePlan) -> list[list[bytes]]:
    return [[bytes(part.read()) for part in member.parts] for member in plan.members]


def filled(sizes: list[int], seed: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator) for size in sizes]
    return {"history": {f"row{number}": tensor for number, tensor in enumerate(tensors)}, "step": seed}


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let memory begin so many bytes behind a page, as the list says for one allocation after the other."""
    shifts: list[int] = []
    allocate = staging._allocate

    def allocate_shifted(nbytes: int, *, pinned: bool) -> torch.Tensor:
        assert not pinned or staging._cuda_in_use()
        memory = allocate(nbytes + 2 * PAGE, pinned=False)
        start = -memory.data_ptr() % PAGE + (shifts.pop(0) if shifts else 0)
        return memory[start : start + nbytes]

    monkeypatch.setattr(staging, "_allocate", allocate_shifted)
    return shifts


any_sizes = st.lists(st.lists(st.integers(0, 3 * PAGE) | st.integers(65_000, 70_000), max_size=4), max_size=8)
growing_sizes = st.lists(st.integers(0, 2 * PAGE), min_size=2, max_size=8).map(
    lambda growths: [[total] for total in accumulate(growths)]
)


@pytest.mark.parametrize("cuda", [False, True])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=any_sizes | growing_sizes,
    shifts=st.lists(st.integers(0, PAGE - 1), min_size=8, max_size=8),
)
def test_any_sequence_of_sizes_can_be_staged(
    monkeypatch: pytest.MonkeyPatch, shifted: list[int], cuda: bool, states: list[list[int]], shifts: list[int]
) -> None:
    """As on a CPU and, but for the memory being page-locked, as where CUDA is in use."""
    shifted[:] = shifts
    with monkeypatch.context() as patch:
        patch.setattr(staging, "_cuda_in_use", lambda: cuda)
        patch.setattr(DeviceStaging, "_side_streams", contextlib.nullcontext)
        memory = DeviceStaging()
        for seed, sizes in enumerate(states):
            state = filled(sizes, seed)
            expected = content_of(plan_of(state))
            staged = memory.copy(plan_of(state))
            for tensor in state["history"].values():  # type: ignore[attr-defined]  # it is a dict
                tensor.zero_()
            assert content_of(staged) == expected


@pytest.mark.parametrize("shift", [0, 1, 64, 2048, PAGE - 1])
def test_a_state_may_grow_byte_by_byte(shifted: list[int], shift: int) -> None:
    shifted[:] = [shift] * 100
    memory = DeviceStaging()
    for growth in range(0, 2 * PAGE + 100, 61):
        state = filled([100_000 + growth], growth)
        assert content_of(memory.copy(plan_of(state))) == content_of(plan_of(state))


def test_without_memory_a_copy_fails_and_the_next_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DeviceStaging()
    memory.copy(plan_of(filled([1000], 0)))
    large = plan_of(filled([100_000], 1))

    def refuse(nbytes: int, *, pinned: bool) -> torch.Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(staging, "_allocate", refuse)
        with pytest.raises(MemoryError):
            memory.copy(large)
    assert content_of(memory.copy(large)) == content_of(large)


def layouts() -> dict[str, torch.Tensor]:
    """Return tensors whose elements do not lie in memory in order, or not as their values."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, 5, generator=generator)
    numbers = torch.randn(6, 4, dtype=torch.complex64, generator=generator)
    return {
        "channels last": torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        "transposed bfloat16": base[0].bfloat16().T,
        "strided float64": base.double()[::2, 1:, ::3],
        "bool": base.permute(2, 0, 1) > 0,
        "float8": base[0].to(torch.float8_e4m3fn).T,
        "int16": base[0].to(torch.int16).T,
        "scalar of a row": base[0, 0, 3],
        "complex": numbers.T,
        "conjugate": numbers.conj(),
        "transposed conjugate": numbers.conj().T,
        "negative": numbers.conj().imag,
        "expanded": base[0, :1].expand(3, 5),
    }


@pytest.mark.parametrize("name", layouts())
def test_copies_of_any_layout_are_exact(name: str) -> None:
    tensor = layouts()[name]
    expected = tensor.resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    buffer = memoryview(bytearray(len(expected) + 1))[1:]  # aligned for bytes only
    copy_out(tensor, buffer)
    assert bytes(buffer) == expected
    state: dict[str, object] = {"part": {"odd": torch.zeros(3, dtype=torch.uint8), "tensor": tensor}}
    assert content_of(DeviceStaging().copy(plan_of(state))) == content_of(plan_of(state))
    assert expected in content_of(plan_of(state))[0]
    if name == "expanded":
        return  # several elements share memory
    target = torch.zeros_like(tensor.resolve_conj().resolve_neg())
    for taker in (target, tensor):
        copy_in(np.frombuffer(expected, np.uint8), taker)
        assert taker.resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8).numpy().tobytes() == expected


def test_any_byte_but_zero_is_true() -> None:
    tensor = torch.zeros(2, 3, dtype=torch.bool)
    into = target_of(tensor)
    assert callable(into)
    into(3, memoryview(bytes([0, 255, 1])))
    into(0, memoryview(bytes([2, 0, 0])))
    assert tensor.view(torch.uint8).tolist() == [[1, 0, 0], [0, 1, 1]]
