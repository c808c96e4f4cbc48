"""Files without components: what is shown of them never has the name that the format gives the only component."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt._core.format.index import ROOT
from ckptfmt.errors import CkptfmtError
from tests.cli.conftest import invoke

torch = pytest.importorskip("torch")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    net = {"w": np.arange(6.0).reshape(2, 3), "odd": np.ones(3, np.float32)}
    changed = {**net, "w": net["w"] + 1}
    ckptfmt.save(net, tmp_path / "bare.ckptfmt")
    ckptfmt.save([changed["w"], {"lr": 0.1}], tmp_path / "list.ckptfmt")
    ckptfmt.save([net["w"], {"lr": 0.2}], tmp_path / "other.ckptfmt")
    ckptfmt.save({"net": changed}, tmp_path / "named.ckptfmt")
    ckptfmt.save([{"lr": 0.1}], tmp_path / "nothing.ckptfmt")
    np.savez(tmp_path / "a.npz", **changed, text=np.array(["x"]))  # type: ignore[arg-type]  # of several kinds
    torch.save({name: torch.from_numpy(value) for name, value in net.items()}, tmp_path / "a.pth")
    torch.save([torch.ones(2).to(torch.float8_e4m3fn), 1], tmp_path / "list.pth")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        *("inspect --all bare.ckptfmt", "inspect --stats list.ckptfmt", "inspect --tree bare.ckptfmt", "inspect a.pth"),
        *("inspect --tensor nope bare.ckptfmt", "inspect --tensor odd a.pth", "diff --all --values bare.ckptfmt a.npz"),
        *("diff --all bare.ckptfmt named.ckptfmt", "diff --all named.ckptfmt list.ckptfmt", "verify bare.ckptfmt"),
        *("diff --all --values list.ckptfmt other.ckptfmt", "ls .", "latest .", "export list.pth x.npz"),
        *("export list.ckptfmt x.safetensors", "export nothing.ckptfmt x.safetensors", "convert a.npz y.ckptfmt"),
        *("export a.npz x.safetensors", "export a.npz x.pth", "export list.pth y.safetensors"),
        *(
            "export bare.ckptfmt z.npz --component nope",
            "strip bare.ckptfmt --drop net -o z.ckptfmt",
            "plot . -o p.svg",
        ),
    ],
)
def test_no_command_shows_it(files: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    result = invoke(*command.split())
    assert ROOT not in result.stdout + result.stderr
    assert result.stdout + result.stderr
    assert result.exit_code != 3


@pytest.mark.parametrize("state", [[object()], {1: 2.0, "x": {1: object()}}, {"w": np.ones(2), "s": np.array(["a"])}])
def test_no_error_of_a_save_shows_it(tmp_path: Path, state: Any) -> None:
    with pytest.raises(CkptfmtError) as caught:
        ckptfmt.save(state, tmp_path / "a.ckptfmt", codec={"net": "zstd"})
    assert ROOT not in str(caught.value)


def test_no_error_of_a_read_shows_it(files: Path) -> None:
    with ckptfmt.open(files / "bare.ckptfmt") as checkpoint:
        for read in (lambda: checkpoint["net"], lambda: checkpoint[ROOT]["nope"], checkpoint[ROOT].structure):
            with pytest.raises(CkptfmtError) as caught:
                read()
            assert ROOT not in str(caught.value)


def test_no_error_of_a_warm_start_shows_it(files: Path) -> None:
    from ckptfmt.torch import warm_start

    for source in ("nope", {"a": "nope"}):
        models = torch.nn.Linear(1, 1) if source == "nope" else {"a": torch.nn.Linear(1, 1), "b": torch.nn.Linear(1, 1)}
        with pytest.raises(CkptfmtError) as caught:
            warm_start(files / "a.pth", models, source=source, quiet=True)
        assert ROOT not in str(caught.value)
