"""Files of a web server: read by ranges, never written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import ckptfmt
import ckptfmt.torch
from ckptfmt._core.ops.comparison.diff import diff_files
from ckptfmt._core.ops.conversion.convert import convert
from ckptfmt._core.ops.directory.verify import Verdict, verify_paths
from ckptfmt._core.ops.inspection.inspect import inspect_file
from ckptfmt.errors import ChangedError, StorageError
from ckptfmt_cli.main import cli
from tests.web_server import web_server

STATE = {"net": {f"p{number}": np.full(400_000, number, dtype=np.float32) for number in range(5)}}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    ckptfmt.save(STATE, tmp_path / "served" / "two words.ckptfmt", step=3)
    with web_server(tmp_path / "served") as url:
        yield url


def test_a_checkpoint_is_read_verified_compared_and_converted(web: str, tmp_path: Path) -> None:
    url, path = f"{web}/two%20words.ckptfmt", tmp_path / "served" / "two words.ckptfmt"
    np.testing.assert_array_equal(ckptfmt.load(url)["net"]["p4"], STATE["net"]["p4"])
    assert inspect_file(url).tensor_bytes == inspect_file(path).tensor_bytes
    assert [file.verdict for file in verify_paths([url]).files] == [Verdict.SOUND]
    assert diff_files(url, path).same
    convert(url, tmp_path / "a.ckptfmt")
    assert diff_files(tmp_path / "a.ckptfmt", path).same


def test_weights_of_other_formats_are_started_from(web: str, tmp_path: Path) -> None:
    net, started = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    torch.save(net.state_dict(), tmp_path / "served" / "a.pth")
    ckptfmt.torch.warm_start(f"{web}/a.pth", {"net": started})
    assert torch.equal(started.weight, net.weight)


def test_a_file_that_is_replaced_while_it_is_read_is_no_mixture(web: str, tmp_path: Path) -> None:
    path = tmp_path / "served" / "two words.ckptfmt"
    with ckptfmt.open(f"{web}/two words.ckptfmt") as checkpoint:
        content = bytearray(path.read_bytes())
        content[8192] ^= 1
        path.write_bytes(content)
        with pytest.raises(ChangedError):
            checkpoint.load()


def test_nothing_is_written_or_listed_there(web: str) -> None:
    with pytest.raises(StorageError) as caught:
        ckptfmt.save(STATE, f"{web}/b.ckptfmt")
    assert f"{web}/b.ckptfmt" in str(caught.value)
    for command in ("ls", "latest", "pin", "prune --keep-last 1 --yes"):
        result = CliRunner().invoke(cli, [*command.split(), web])
        assert result.exit_code == 3, command
        assert web in result.stderr


def test_what_is_not_there_is_told(web: str) -> None:
    with pytest.raises(StorageError) as caught:
        ckptfmt.open(f"{web}/none.ckptfmt")
    assert f"{web}/none.ckptfmt" in str(caught.value)
    assert caught.value.errno == 2


def test_a_server_without_ranges_is_told(tmp_path: Path) -> None:
    ckptfmt.save(STATE, tmp_path / "a.ckptfmt")
    with web_server(tmp_path, ranges=False) as url, pytest.raises(StorageError) as caught:
        ckptfmt.open(f"{url}/a.ckptfmt")
    assert "range" in str(caught.value).lower()
