"""Files of other formats with changed, added or missing bytes: `python -m tests.breaking.foreign_files`.

Each ends in a result or in an error of ours. Where the format has a checksum, the result is the right one.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

import ckptfmt
import ckptfmt.torch

_ADDED = 0.15
_CUT = 0.1


def write_files(directory: Path) -> dict[str, bool]:
    """Write files of all formats; return their names, and whether checksums cover their content."""
    torch.manual_seed(0)
    weight = torch.randn(37, 11)
    tensors = {"weight": weight, "bias": torch.randn(11), "numbers": torch.arange(50)}
    state = {"model": {**tensors, "view": weight[3:9]}, "epoch": 3, "optimizer": {"lr": 0.1, "steps": [1, 2, (3, 4)]}}
    torch.save(state, directory / "a.pth")
    torch.save(state, directory / "old.pth", _use_new_zipfile_serialization=False)
    with (
        zipfile.ZipFile(directory / "a.pth") as there,
        zipfile.ZipFile(directory / "packed.pth", "w", zipfile.ZIP_DEFLATED) as here,
    ):
        for member in there.infolist():
            here.writestr(member.filename, there.read(member))
    safetensors.torch.save_file(tensors, directory / "a.safetensors")
    np.savez(directory / "a.npz", weight=weight.numpy(), numbers=np.arange(9, dtype=np.int16))
    np.savez_compressed(directory / "packed.npz", weight=weight.numpy(), numbers=np.arange(9))
    ckptfmt.torch.save(state, directory / "a.ckptfmt")
    ckptfmt.torch.save(state, directory / "packed.ckptfmt", codec="zstd")
    shard, index = "model-00001-of-00001.safetensors", "model.safetensors.index.json"
    (directory / "hf").mkdir()
    safetensors.torch.save_file(tensors, directory / "hf" / shard)
    (directory / "hf" / index).write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, shard)})
    )
    checked = ("a.pth", "packed.pth", "a.npz", "packed.npz", "a.ckptfmt", "packed.ckptfmt")
    return dict.fromkeys(checked, True) | dict.fromkeys(
        ("old.pth", "a.safetensors", f"hf/{shard}", f"hf/{index}"), False
    )


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield what is in a state, in values that can be compared."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}[{index}]")
    elif isinstance(value, torch.Tensor):
        yield path, (value.dtype, value.shape, value.contiguous().numpy().tobytes())
    else:
        yield path, repr(value)


def load(path: Path) -> dict[str, object]:
    return dict(leaves(ckptfmt.torch.load(path)))


def converted(path: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        ckptfmt.convert(path, Path(name, "a.ckptfmt"))
        return load(Path(name, "a.ckptfmt"))


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Return the data with another bit, more bytes, or without an end."""
    offset = dice.randrange(len(data))
    luck = dice.random()
    if luck < _CUT:
        return data[:offset]
    changed = bytearray(data)
    changed[offset] ^= 1 << dice.randrange(8)
    if luck < _CUT + _ADDED:
        changed[offset:offset] = bytes(dice.randrange(1, 9))
    return bytes(changed)


def attack(directory: Path, times: int, seed: int) -> dict[str, Any]:
    """Damage each file so many times, and read it."""
    dice = random.Random(seed)
    cases, broken = 0, []
    for name, is_checked in write_files(directory).items():
        path = directory / name
        data, target = path.read_bytes(), directory / "hf" if name.startswith("hf/") else path
        ways: list[Callable[[Path], dict[str, object]]] = [load, converted]
        if path.suffix == ".ckptfmt":
            ways.remove(converted)
        for read in ways:
            right = read(target)
            for _ in range(times):
                cases += 1
                path.write_bytes(damaged(data, dice))
                try:
                    found = read(target)
                except ckptfmt.CkptfmtError:
                    continue
                except Exception as error:
                    broken.append(f"{name}, {read.__name__}: {type(error).__name__}: {error}")
                else:
                    if is_checked and found != right:
                        broken.append(f"{name}, {read.__name__}: another value")
            path.write_bytes(data)
    return {"cases": cases, "broken": broken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=300, help="how often each file is damaged")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ckptfmt-foreign-") as name:
        print(json.dumps(attack(Path(name), options.times, options.seed)))


if __name__ == "__main__":
    main()
