"""spec/registry.json, the tables of the spec, the library, the minimal reader and the vectors' maker say the same."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ckptfmt._core.format import chunks, codec, digest, index, layout, packing, parsing, sparse, tensors, trees
from ckptfmt._core.format.dtypes import COMPLEX_PARTS, DTYPES
from ckptfmt._problems import _KIND_OF
from spec import minimal_reader
from spec.vectors.making import container
from tests.spec.vectors import ROOT, SPEC

TEXT = SPEC.read_text(encoding="utf-8")
REGISTRY: dict[str, Any] = json.loads((ROOT / "spec" / "registry.json").read_text(encoding="utf-8"))
LIMITS: dict[str, int] = {limit["what"]: limit["limit"] for limit in REGISTRY["limits"]}


def table(first: str) -> list[list[str]]:
    """The rows of the table in the spec whose header begins with these cells."""
    rows = TEXT[TEXT.index(f"| {first} |") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def names(cell: str) -> list[str]:
    """What stands in code marks in a cell; a dash is nothing."""
    return re.findall(r"`([^`]+)`", cell)


def test_problem_codes() -> None:
    rows = {code: (kind, clauses.split(", ")) for codes, kind, clauses in table("code | kind") for code in names(codes)}
    assert rows == {entry["code"]: (entry["kind"], entry["clauses"]) for entry in REGISTRY["problems"]}
    assert {code: str(kind) for code, kind in _KIND_OF.items()} == {code: kind for code, (kind, _) in rows.items()}
    for code, (_, clauses) in rows.items():
        for clause in clauses:
            text = TEXT[TEXT.index(f"\n**{clause}**") + 1 :]
            assert f"`{code}`" in re.split(r"^\*\*\d+\.\d+\*\*|^## ", text[4:], flags=re.MULTILINE)[0], (code, clause)


def test_dtypes() -> None:
    found = []
    for cell, bits, planes, _, numpy, torch, since in table("dtype | bits"):
        for number, name in enumerate(names(cell)):
            theirs = [(names(column) or ["", ""])[number] for column in (numpy, torch)]
            found.append(
                [name, int(bits), int(planes), *(other or None for other in theirs), since if since != "all" else None]
            )
    keys = ("name", "bits", "planes", "numpy", "torch", "safetensors")
    assert found == [[entry[key] for key in keys] for entry in REGISTRY["dtypes"]]
    splits = {entry["name"]: (entry["bits"], entry["planes"], entry["exponent_bits"]) for entry in REGISTRY["dtypes"]}
    assert splits == {name: (it.bits, it.split.planes, it.split.exponent_bits) for name, it in DTYPES.items()}
    for module in (minimal_reader, container):
        exponents = {name: module.EXPONENT_BITS.get(name, 0) for name in module.BITS}
        assert splits == {name: (bits, module.PLANES[name], exponents[name]) for name, bits in module.BITS.items()}


def test_ext_types() -> None:
    known = {entry["ext"]: entry["name"] for entry in REGISTRY["ext_types"]}
    assert {int(number.replace("\N{MINUS SIGN}", "-")): name for number, name, _ in table("ext | name")} == known
    found = {getattr(packing, name) for name in dir(packing) if name.startswith("EXT_")}
    assert found == known.keys()
    assert not found & set(REGISTRY["reserved"]["ext_types"])


def test_type_names() -> None:
    text = "\n".join(row[2] for row in table("row | value"))
    found = [name for phrase in re.findall(r"typed (`[^`]+`(?:(?:, | or )`[^`]+`)*):", text) for name in names(phrase)]
    assert sorted(found) == sorted(REGISTRY["type_names"])
    assert minimal_reader.TYPES.keys() == set(found)
    assert {*trees._CHECKS, *sparse.SPARSE, *COMPLEX_PARTS, trees.NUMPY_ARRAY} == set(found)


def test_keys() -> None:
    assert [names(row[0])[0] for row in table("key | type | content")] == REGISTRY["index_keys"]
    after = TEXT[TEXT.index("**5.3**") : TEXT.index("**5.4**")]
    assert re.findall(r"^\| `(\w+)` \|", after, re.MULTILINE) == REGISTRY["metadata_keys"]
    assert [names(row[0])[0] for row in table("key | type | present")] == REGISTRY["member_keys"]
    assert [*index.INDEX_KEYS] == [*minimal_reader.INDEX] == REGISTRY["index_keys"]
    assert [*index.METADATA_KEYS] == [*minimal_reader.METADATA] == REGISTRY["metadata_keys"]
    assert [*index.MEMBER_KEYS, *index.STORED_KEYS] == [*minimal_reader.ENTRY] == REGISTRY["member_keys"]


def test_limits() -> None:
    rows = {names(code)[0]: int(re.sub(r"\D", "", limit.split(" ")[0])) for _, limit, code in table("what | limit")}
    assert rows == {entry["code"]: entry["limit"] for entry in REGISTRY["limits"] if entry["code"].startswith("limit-")}
    assert {
        "index_bytes": layout.MAX_INDEX_BYTES,
        "members": layout.MAX_MEMBERS,
        "header_bytes": layout.MAX_HEADER_BYTES,
        "msgpack_bytes": layout.MAX_MSGPACK_BYTES,
        "depth": packing.MAX_DEPTH,
        "values": packing.MAX_VALUES,
        "loose_keys": packing.MAX_LOOSE_KEYS,
        "member_name_bytes": max(count for count in range(200) if index.is_member_name("x" * count)),
        "component_name_bytes": index._MAX_COMPONENT_BYTES,
        "run_id_bytes": parsing.MAX_RUN_ID_BYTES,
        "dimensions": tensors.MAX_DIMENSIONS,
        "stored_chunk_excess_bytes": parsing.MAX_STORED_EXCESS,
        "zstd_window_bytes": codec.MAX_WINDOW_BYTES,
        "zstd_block_bytes": codec.MAX_BLOCK_BYTES,
    } == LIMITS
    theirs = {
        "index_bytes": minimal_reader.MAX_INDEX,
        "members": minimal_reader.MAX_MEMBERS,
        "header_bytes": minimal_reader.MAX_HEADER,
        "msgpack_bytes": minimal_reader.MAX_MSGPACK,
        "depth": minimal_reader.MAX_DEPTH,
        "values": minimal_reader.MAX_VALUES,
        "loose_keys": minimal_reader.MAX_KEYS,
    }
    assert theirs.items() <= LIMITS.items()


def test_format_and_sizes() -> None:
    form, sizes = REGISTRY["format"], REGISTRY["sizes"]
    assert (form["major"], form["minor"]) == (layout.MAJOR, layout.MINOR)
    for module in (minimal_reader, container):
        assert module.MAGIC == layout.PREAMBLE_MAGIC == bytes.fromhex(form["magic"])
        assert module.TRAILER_MAGIC == layout.TRAILER_MAGIC == bytes.fromhex(form["trailer_magic"])
        assert module.CHUNK == chunks.CHUNK_BYTES == sizes["chunk_bytes"]
    assert (sizes["preamble_bytes"], sizes["trailer_bytes"]) == (layout.PREAMBLE_BYTES, layout.TRAILER_BYTES)
    assert sizes["smallest_file_bytes"] == layout.MIN_FILE_BYTES
    assert layout.MEMBER_ALIGNMENT == sizes["member_alignment"] == sizes["header_alignment"]
    assert sizes["index_alignment"] == layout.INDEX_ALIGNMENT
    assert sizes["digest_bytes"] == digest.DIGEST_BYTES
    assert layout.MAX_UINT == minimal_reader.UINT == int(sizes["largest_uint"])


def test_codecs_and_features() -> None:
    assert [names(row[0])[0] for row in table("codec | a stored chunk is")] == REGISTRY["codecs"] == [*index.CODECS]
    assert REGISTRY["features"] == []
    assert REGISTRY["reserved"]["members"] == [index.RESERVED]
    assert REGISTRY["reserved"]["component"] == index.ROOT


@pytest.mark.parametrize("name", ["shard", "shards.index", "sharded", "I4", "U4"])
def test_reserved_names_stand_in_the_spec_and_mean_nothing_yet(name: str) -> None:
    reserved = REGISTRY["reserved"]
    assert name in {value for key in ("dtypes", "type_names", "features", "members") for value in reserved[key]}
    assert f"`{name}`" in TEXT
    assert name not in {*REGISTRY["type_names"], *DTYPES}
