"""The specification as a document: its links lead somewhere, and its recipe for one tensor works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.spec.vectors import ROOT, SPEC, VALID, Vector, integers

TEXT = SPEC.read_text(encoding="utf-8")
PAGES = [*(ROOT / "spec").glob("*.md"), ROOT / "spec" / "vectors" / "README.md"]
FLAT = [
    vector
    for vector in VALID
    if vector.content["version"][1] == 0 and all(member["codec"] == "none" for member in vector.content["members"])
]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        file, _, anchor = link.partition("#")
        if "://" in file:
            continue
        target = page if not file else page.parent / file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_digest_of_nothing_is_right() -> None:
    assert f"`{blake3(b'').hexdigest()}`" in TEXT


@pytest.fixture(scope="module")
def read_tensor() -> Callable[[Path, str, str], tuple[str, list[int], bytes]]:
    """The function of annex D."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[[Path, str, str], tuple[str, list[int], bytes]] = names["read_tensor"]
    return found


@pytest.mark.parametrize("vector", FLAT, ids=lambda vector: vector.name)
def test_the_recipe_reads_every_tensor(
    vector: Vector, tmp_path: Path, read_tensor: Callable[[Path, str, str], tuple[str, list[int], bytes]]
) -> None:
    path = vector.file(tmp_path)
    for component, content in vector.content["components"].items():
        for tensor in content["tensors"]:
            dtype, shape, data = read_tensor(path, component, tensor["name"])
            expected = tensor["dtype"], integers(tensor["shape"]), bytes.fromhex(tensor["data"])
            assert (dtype, shape, data) == expected


def test_the_recipe_notices_damage(
    tmp_path: Path, read_tensor: Callable[[Path, str, str], tuple[str, list[int], bytes]]
) -> None:
    (flat,) = [vector for vector in VALID if vector.name == "flat"]
    data = flat.file(tmp_path).read_bytes()
    for offset in (8192, 8300, len(data) - 50):
        damaged = tmp_path / "damaged"
        damaged.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(ValueError, match=r"damaged|truncated"):
            read_tensor(damaged, "net", "bias")
    damaged.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="truncated"):
        read_tensor(damaged, "net", "bias")
