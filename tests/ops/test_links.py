"""Links out of a directory: what they lead to is not taken for a part of the checkpoint and given away."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ckptfmt
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.conversion.export import export
from ckptfmt._core.ops.members.extract import FACTS_NAME, extract
from ckptfmt._core.ops.members.pack import pack
from ckptfmt.errors import ForeignFileError, PackError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")

NET = {"a": np.arange(20, dtype=np.float32), "b": np.ones(20, np.float32)}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Return a directory with files that nobody means to give away."""
    secrets = tmp_path / "home"
    secrets.mkdir()
    ckptfmt.save({"net": NET, "notes": {"key": "secret"}}, secrets / "all.ckptfmt")
    for name in ("net.safetensors", "notes.msgpack", FACTS_NAME):
        (extract_to(secrets) / name).rename(secrets / name)
    (secrets / "key").write_text("secret")
    (secrets / "config.json").write_text('{"key": "secret"}')
    torch.save({"key": "secret"}, secrets / "optimizer.pt")
    return secrets


def extract_to(secrets: Path) -> Path:
    target = secrets / "members"
    if not target.exists():
        extract(secrets / "all.ckptfmt", target)
    return target


@pytest.mark.parametrize("name", ["net.safetensors", "notes.msgpack", "key", FACTS_NAME])
@pytest.mark.parametrize("relative", [False, True])
def test_pack_takes_no_file_from_elsewhere(tmp_path: Path, secrets: Path, name: str, relative: bool) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / name).symlink_to(Path("..", "home", name) if relative else secrets / name)
    with pytest.raises(PackError, match="home"):
        pack(given, tmp_path / "out.ckptfmt")
    assert not (tmp_path / "out.ckptfmt").exists()


def test_pack_follows_links_inside_and_one_to_the_directory(tmp_path: Path, secrets: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "net.safetensors").write_bytes((secrets / "net.safetensors").read_bytes())
    (given / "ema.safetensors").symlink_to("net.safetensors")
    (tmp_path / "link").symlink_to("given")
    assert pack(tmp_path / "link", tmp_path / "out.ckptfmt").members == ("ema.safetensors", "net.safetensors")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model of Hugging Face with two shards."""
    model = tmp_path / "model"
    ckptfmt.save({"net": NET}, tmp_path / "net.ckptfmt")
    export(tmp_path / "net.ckptfmt", model, shard_bytes=80)
    (model / "config.json").write_text("{}")
    return model


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json"])
def test_a_model_takes_no_file_from_elsewhere(tmp_path: Path, model: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (model / name).rename(tmp_path / "elsewhere" / name)
    (model / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(ForeignFileError, match=rf"{re.escape(name)}.*elsewhere"):
        convert(model, tmp_path / "out.ckptfmt")
    assert not (tmp_path / "out.ckptfmt").exists()


def test_a_trainers_state_takes_no_file_from_elsewhere(tmp_path: Path, model: Path, secrets: Path) -> None:
    (model / "trainer_state.json").write_text("{}")
    (model / "optimizer.pt").symlink_to(secrets / "optimizer.pt")
    with pytest.raises(ForeignFileError, match=r"optimizer\.pt"):
        convert(model, tmp_path / "out.ckptfmt")


def test_links_inside_and_those_of_hugging_faces_cache_are_followed(tmp_path: Path, model: Path) -> None:
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "0123" / "part"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(model.iterdir())):
        path.rename(blobs / f"{number}")
        (snapshot / path.name).symlink_to(Path("..", "..", "..", "blobs", f"{number}"))
    convert(snapshot, tmp_path / "out.ckptfmt")
    with ckptfmt.open(tmp_path / "out.ckptfmt") as checkpoint:
        np.testing.assert_array_equal(checkpoint["net"]["a"], NET["a"])
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "net.ckptfmt")
    with pytest.raises(ForeignFileError, match=r"config\.json"):
        convert(snapshot, tmp_path / "out.ckptfmt")
