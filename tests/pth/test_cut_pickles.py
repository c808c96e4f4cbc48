"""A pickle that is empty or ends early is malformed, wherever in a file it stands: never an empty checkpoint."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt._core.ops.conversion.pickle_imports import list_pickle_imports
from ckptfmt.errors import ForeignFileError
from tests.pth.attacks import GOOD, NOTHING, TAR_PARTS, stream_of, tar_of, zip_of

CODE = {"code/__torch__.py": b""}
NO_CONSTANTS = pickle.dumps((), 2)


def with_pickle(form: str, content: bytes) -> bytes:
    """Return a file of a form whose content is this pickle."""
    match form:
        case "zip":
            return zip_of(content)
        case "zip, deflated":
            return zip_of(content, method=zipfile.ZIP_DEFLATED)
        case "torchscript":
            return zip_of(content, {"constants.pkl": NO_CONSTANTS, **CODE})
        case "stream":
            return stream_of(slots={3: content})
        case "tar":
            return tar_of({**TAR_PARTS, "pickle": content})
    return content


FORMS = ["zip", "zip, deflated", "torchscript", "stream", "tar", "pickle"]
EMPTY = {
    **{f"content of a {form}": with_pickle(form, b"") for form in FORMS},
    "another pickle of a zip": zip_of(GOOD, {"extra.pkl": b""}),
    "constants of a torchscript": zip_of(GOOD, {"constants.pkl": b"", **CODE}),
    **{f"slot {slot} of a stream": stream_of(slots={slot: b""}) for slot in range(5)},
    "storages of a tar": tar_of({**TAR_PARTS, "storages": b""}),
    "storages of a tar, behind their number": tar_of({**TAR_PARTS, "storages": NOTHING}),
    "tensors of a tar": tar_of({**TAR_PARTS, "tensors": b""}),
}


def refused(path: Path) -> None:
    target = path.with_name("out.ckptfmt")
    with pytest.raises(ForeignFileError):
        ckptfmt.convert(path, target)
    assert not target.exists()
    try:
        assert list_pickle_imports(path).fault is not None
    except ForeignFileError:
        assert path.stat().st_size == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_pickle_is_taken(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.pth").write_bytes(with_pickle(form, GOOD))
    ckptfmt.convert(tmp_path / "a.pth", tmp_path / "a.ckptfmt")
    assert ckptfmt.load(tmp_path / "a.ckptfmt") == {"epoch": 1}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_pickle_is_malformed(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.pth").write_bytes(EMPTY[what])
    refused(tmp_path / "a.pth")


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_that_is_cut_anywhere_is_malformed(tmp_path: Path, form: str) -> None:
    for length in range(1, len(GOOD)):
        (tmp_path / "a.pth").write_bytes(with_pickle(form, GOOD[:length]))
        refused(tmp_path / "a.pth")
