"""Files as PyTorch writes them today, as it wrote them once, and as it writes them on other machines."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch


def save(state: object, path: Path, *, stream: bool = False, protocol: int = 2) -> Path:
    """Save with `torch.save`, in the form of today or of before 1.6."""
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not stream)
    return path


def repack(path: Path, *, method: int = zipfile.ZIP_STORED, changed: dict[str, bytes] | None = None) -> Path:
    """Write an archive anew with the zip program of Python: other offsets, packed if wanted, some members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    root = next(iter(members)).partition("/")[0]
    members |= {f"{root}/{name}": content for name, content in (changed or {}).items()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def save_big_endian(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """Save as a big-endian machine does: every number the other way round, and a mark that says so."""
    save({name: _swapped(tensor) for name, tensor in tensors.items()}, path)
    return repack(path, changed={"byteorder": b"big"})


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    word = tensor.element_size() // (2 if tensor.is_complex() else 1)
    words = tensor.contiguous().view(torch.uint8).reshape(-1, word)
    return words.flip(1).reshape(-1).view(tensor.dtype).reshape(tensor.shape)


def save_tar(state: dict[str, Any], path: Path) -> Path:
    """Save as PyTorch did before 0.1.10: a tar archive of `storages`, `tensors` and `pickle`."""
    storages, tensors = io.BytesIO(), io.BytesIO()
    keys: dict[int, str] = {}
    roots: dict[int, int] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, found: Any) -> Any:
            if isinstance(found, torch.Tensor):
                keys.setdefault(id(found), str(len(keys) + 1))
                found_tensors.setdefault(keys[id(found)], found)
                return keys[id(found)]
            return None

    found_tensors: dict[str, torch.Tensor] = {}
    content = io.BytesIO()
    Pickler(content, protocol=2).dump(state)
    owners = {tensor.untyped_storage().data_ptr(): tensor for tensor in found_tensors.values()}
    pickle.dump(len(owners), storages, 2)
    for number, (address, tensor) in enumerate(owners.items()):
        roots[address] = 1000 + number
        storages.write(_dump_class((1000 + number, "cpu"), _storage_class(tensor)))
        data = bytes(tensor.untyped_storage())
        storages.write(struct.pack("<q", len(data) // tensor.element_size()) + data)
    pickle.dump([], storages, 2)
    pickle.dump(len(found_tensors), tensors, 2)
    for key, tensor in found_tensors.items():
        pickle.dump((int(key), roots[tensor.untyped_storage().data_ptr()], None), tensors, 2)
        numbers = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
        tensors.write(struct.pack("<ii", tensor.dim(), 0) + struct.pack(f"<{len(numbers)}q", *numbers))
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        parts = {"sys_info": io.BytesIO(), "pickle": content, "tensors": tensors, "storages": storages}
        for name, part in parts.items():
            raw = part.getvalue()
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return path


_CLASSES = {torch.float32: "FloatStorage", torch.float64: "DoubleStorage", torch.int64: "LongStorage"}


def _storage_class(tensor: torch.Tensor) -> str:
    return _CLASSES[tensor.dtype]


def _dump_class(values: tuple[int, str], storage_type: str) -> bytes:
    key, location = values
    return (
        b"\x80\x02(J"
        + struct.pack("<i", key)
        + b"X"
        + struct.pack("<I", len(location))
        + location.encode()
        + f"ctorch\n{storage_type}\n".encode()
        + b"t."
    )


def documented(epoch: int = 4) -> dict[str, Any]:
    """Return what the documented loop saves: after some steps of training."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
    return {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex32, torch.complex64),
    *(torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    torch.float8_e8m0fnu,
]


def of_every_dtype() -> dict[str, torch.Tensor]:
    """Return a tensor of each dtype that can be expressed, of bits that stand for something in all of them."""
    torch.manual_seed(1)
    found = {}
    for dtype in DTYPES:
        width = dtype.itemsize
        raw = torch.randint(0, 2 if dtype is torch.bool else 120, (12 * width,), dtype=torch.uint8)
        with warnings.catch_warnings(action="ignore"):  # some dtypes are called new
            found[str(dtype)] = raw.view(dtype).reshape(3, 4)
    return found


def views() -> dict[str, Any]:
    """Return tensors that lie in their storages in many ways."""
    base = torch.arange(240, dtype=torch.float32)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    return {
        "part": base[10:20],
        "rows": base.reshape(12, 20)[3:7],
        "columns": base.reshape(12, 20)[:, 3:7],
        "transposed": base.reshape(12, 20).t(),
        "every third": base[5::3],
        "permuted": base.reshape(2, 4, 5, 6).permute(3, 1, 0, 2),
        "expanded": base[7:8].expand(5, 6),
        "expanded inside": base[:4].reshape(4, 1).expand(4, 3),
        "channels last": image,
        "scalar": base[33],
        "empty": base[:0],
        "empty of a shape": torch.empty(3, 0, 2),
        "one": torch.ones(1, 1, 1).expand(1, 1, 1),
        "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
        "imaginary": torch.randn(3, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "frozen": torch.nn.Parameter(torch.arange(3), requires_grad=False),
        "buffer": torch.nn.Buffer(torch.zeros(2)),
        "nested": [torch.zeros(1), (torch.ones(1), {"deep": OrderedDict(x=torch.full((2,), 7.0))})],
    }
