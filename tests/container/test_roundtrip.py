"""What is saved comes back: types, bits, order and sharing, through every codec."""

import array
import math
from collections import OrderedDict, UserDict, defaultdict
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.errors import StateError
from tests import strategies
from tests.strategies import same

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
component_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: name != "_root"
)
# tmp_path is shared by the examples of one test; each example overwrites the file of the one before.
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def round_trip(path: Path, state: Any, **arguments: Any) -> Any:
    ckptfmt.save(state, path, **arguments)
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.verify() == ()
    return ckptfmt.load(path)


@many
@given(
    state=st.dictionaries(component_names, strategies.state_trees, max_size=3),
    codec=st.sampled_from(["none", "zstd"]),
)
def test_a_state_of_components_comes_back(tmp_path: Path, state: dict[str, Any], codec: str) -> None:
    assert same(round_trip(tmp_path / "a.ckptfmt", state, codec=codec), state)


@many
@given(state=strategies.state_trees)
def test_any_tree_comes_back(tmp_path: Path, state: Any) -> None:
    assert same(round_trip(tmp_path / "a.ckptfmt", state), state)


@many
@given(
    weights=st.dictionaries(
        strategies.text.filter(lambda name: name != "__metadata__"), strategies.arrays(), min_size=1
    )
)
def test_weights_are_a_safetensors_file_that_its_own_reader_opens(
    tmp_path: Path, weights: dict[str, np.ndarray[Any, Any]]
) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"net": weights, "step": 1}, path)
    with ckptfmt.open(path) as checkpoint:
        (member,) = checkpoint["net"].members
        ours = checkpoint["net"].load()
    data = path.read_bytes()[member.offset : member.offset + member.stored_bytes]
    theirs = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # it has no annotations
    assert list(ours) == list(weights)  # a state dict comes back in its order
    assert theirs.keys() == weights.keys()
    for name, value in weights.items():
        assert same(value, ours[name])
        assert bytes(theirs[name]["data"]) == ours[name].tobytes()
        assert tuple(theirs[name]["shape"]) == value.shape


@many
@given(facts=strategies.metadata)
def test_metadata_comes_back(tmp_path: Path, facts: dict[str, Any]) -> None:
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({}, path, **facts)
    with ckptfmt.open(path) as checkpoint:
        found = checkpoint.metadata
    for name, value in facts.items():
        expected = bytes.fromhex(value) if name == "parent" else value
        assert same(getattr(found, name), expected), name


def test_equal_content_gives_equal_bytes_however_it_is_laid_out_in_memory(tmp_path: Path) -> None:
    """15.1 and 9.4: the file depends on the content alone."""
    a = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    for name, value in (("a", a), ("b", np.asfortranarray(a)), ("c", a.astype(">f4"))):
        ckptfmt.save({"net": {"w": value}, "epoch": 3}, tmp_path / name, created=NOW)
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_a_component_keeps_its_identity_under_another_codec_order_and_neighbour(tmp_path: Path) -> None:
    """12.2."""
    w, b = np.ones((3, 5), "f4"), np.arange(7, dtype="f2")
    ckptfmt.save({"net": {"w": w, "b": b}}, tmp_path / "a")
    ckptfmt.save({"epoch": 1, "net": {"b": b, "w": w}}, tmp_path / "b", codec={"net": "zstd"})
    ckptfmt.save({"net": {"w": w, "b": b + 1}}, tmp_path / "c")
    one, two, three = (ckptfmt.open(tmp_path / name) for name in "abc")
    with one, two, three:
        assert one["net"].identity == two["net"].identity != three["net"].identity
        assert one.identity != two.identity


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_tensors_of_several_chunks(tmp_path: Path, codec: str) -> None:
    """7: chunks of 4 MiB, the last one shorter; a tensor that ends exactly on a border, too."""
    chunk = 4 << 20
    weights = {
        "over": np.arange((chunk + 12) // 4, dtype="u4"),
        "exact": np.arange(2 * chunk // 8, dtype="f8"),
        "small": np.arange(3, dtype="u1"),
    }
    assert same(round_trip(tmp_path / "a.ckptfmt", {"net": weights}, codec=codec), {"net": weights})


def test_tied_weights_are_stored_once_and_come_back_as_one(tmp_path: Path) -> None:
    """11.2."""
    shared = np.arange(1 << 16, dtype="f4")
    state = {"net": {"wte": shared, "lm_head": shared, "other": shared[1:]}}
    ckptfmt.save(state, tmp_path / "a.ckptfmt")
    loaded = ckptfmt.load(tmp_path / "a.ckptfmt")
    assert loaded["net"]["wte"] is loaded["net"]["lm_head"]
    assert same(loaded, state)
    assert (tmp_path / "a.ckptfmt").stat().st_size < 2.2 * shared.nbytes


def test_equal_values_in_different_memory_stay_apart(tmp_path: Path) -> None:
    state = {"opt": [np.ones(4), np.ones(4)]}
    a, b = round_trip(tmp_path / "a.ckptfmt", state)["opt"]
    assert a is not b
    a[0] = 5
    assert b[0] == 1


def test_mappings_of_every_kind_come_back_as_dicts_in_their_order(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "a": OrderedDict(z=1, a=2),
        "b": defaultdict(list, {3: [1], 1: []}),
        "c": UserDict({"x": (1,)}),
    }
    loaded = round_trip(tmp_path / "a.ckptfmt", state)
    assert same(loaded, {"a": {"z": 1, "a": 2}, "b": {3: [1], 1: []}, "c": {"x": (1,)}})
    assert list(loaded["b"]) == [3, 1]


def test_arrays_of_others_through_the_buffer_protocol_and_dlpack(tmp_path: Path) -> None:
    class DLPackOnly:
        """An array that speaks DLPack and nothing else."""

        def __init__(self, values: np.ndarray[Any, Any]) -> None:
            self.values = values

        def __dlpack__(self, **arguments: Any) -> Any:
            return self.values.__dlpack__(**arguments)

        def __dlpack_device__(self) -> Any:
            return self.values.__dlpack_device__()

    state = {"net": {"a": array.array("d", [1.5, 2.5]), "b": memoryview(b"\x01\x02"), "c": DLPackOnly(np.arange(3.0))}}
    ckptfmt.save(state, tmp_path / "a.ckptfmt")
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        net = checkpoint["net"]
        assert net.flat
        assert net["a"].tolist() == [1.5, 2.5]
        assert net["b"].tolist() == [1, 2]
        assert net["c"].tolist() == [0, 1, 2]


def test_a_bare_state_dict_is_one_component_and_comes_back_bare(tmp_path: Path) -> None:
    """11.5."""
    weights = {"layer.0.w": np.ones(3), "layer/odd name": np.zeros(2)}
    assert same(round_trip(tmp_path / "a.ckptfmt", weights), weights)
    with ckptfmt.open(tmp_path / "a.ckptfmt") as checkpoint:
        assert list(checkpoint) == ["_root"]
        assert checkpoint["_root"].flat


def test_nan_bits_are_kept(tmp_path: Path) -> None:
    payload = np.array([0x7FF8_0000_DEAD_BEEF], "u8").view("f8")
    loaded = round_trip(tmp_path / "a.ckptfmt", {"x": {"array": payload, "float": float(payload[0]), "inf": -math.inf}})
    assert loaded["x"]["array"].tobytes() == payload.tobytes()
    assert same(loaded["x"]["float"], float(payload[0]))


def test_inert_typed_values_survive_a_rewrite(tmp_path: Path) -> None:
    """11.8: what this reader does not know stays as it is."""
    state = {"x": {"size": ckptfmt.Typed("torch.Size", [2, 3]), "new": ckptfmt.Typed("future.thing", {"a": [1, (2,)]})}}
    assert same(round_trip(tmp_path / "a.ckptfmt", state), state)


class Hostile:
    """Something that must never be pickled."""

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


def test_a_moment_keeps_its_offset_and_not_the_name_of_its_zone(tmp_path: Path) -> None:
    berlin, london = (datetime(2026, 1, 2, 3, tzinfo=ZoneInfo(f"Europe/{city}")) for city in ("Berlin", "London"))
    back = round_trip(tmp_path / "a.ckptfmt", {"berlin": [berlin], "london": [london], "time": [time(1, tzinfo=UTC)]})
    assert back == {"berlin": [berlin], "london": [london], "time": [time(1, tzinfo=UTC)]}
    assert back["berlin"][0].tzinfo == timezone(timedelta(hours=1))
    assert back["london"][0].tzinfo is UTC


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"optimizer": {"param_groups": [{"foo": Hostile()}]}}, "optimizer.param_groups[0].foo"),
        ({"a": {"f": print}}, "a.f"),
        ({"a": {1: [0, lambda: None]}}, "a[1][1]"),
        ({"a": np.array(["text"])}, "a"),
        ({"a": [np.array([object()])]}, "a[0]"),
        ({"a": np.zeros(2, [("x", "f4")])}, "a"),
        ({"a": [np.zeros(2, "longdouble")]}, "a[0]"),
        ({"a": [np.datetime64("2020-01-01")]}, "a[0]"),
        ({"a": np.ma.masked_array([1, 2], [False, True])}, "a"),
        ({"a": [bytearray(b"x")]}, "a[0]"),
        ({"a": ["\ud800"]}, "a[0]"),
        ({"a": {"\ud800": 1}}, "a."),
        ({"a": {(1, 2): 3}}, "a.#0"),
        ({"a": {float("nan"): 3}}, "a.#0"),
        ({"a": {2**64: 3}}, "a[18446744073709551616]"),
        ({"a": {np.int64(3): 3}}, "a.#0"),
        ({"a": {frozenset({1}): 3}}, "a.#0"),
        ({"a": [{(1,)}]}, "a[0]"),
        ({"a": cycle}, "a[0][0]"),
        ({"a": [type("Point", (tuple,), {})((1, 2))]}, "a[0]"),
        ({"a": dict.fromkeys(range(140_000))}, "a"),
        ({"a": [time(12, tzinfo=ZoneInfo("Europe/Berlin"))]}, "a[0]"),
        ({"a": [datetime(2026, 1, 1, tzinfo=timezone(timedelta(microseconds=1)))]}, "a[0]"),
    ],
)
def test_what_cannot_be_expressed_is_refused_with_its_path(tmp_path: Path, state: Any, place: str) -> None:
    """11.7: refused by path, and the file that was there stays."""
    path = tmp_path / "a.ckptfmt"
    ckptfmt.save({"epoch": 1}, path)
    with pytest.raises(StateError) as caught:
        ckptfmt.save(state, path)
    assert caught.value.path.startswith(place)
    assert ckptfmt.load(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckptfmt"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"step": -1}, "step"),
        ({"epoch": 2**63}, "epoch"),
        ({"run_id": ""}, "run_id"),
        ({"run_id": "x" * 257}, "run_id"),
        ({"parent": "abc"}, "parent"),
        ({"parent": "ab" * 31}, "parent"),
        ({"user": {"a": object()}}, "metadata"),
        ({"user": {1: 2}}, "user"),
        ({"user": {"a": (1, 2)}}, "metadata"),
        ({"created": datetime(2026, 1, 1)}, "created"),
        ({"codec": "lz4"}, "codec"),
        ({"codec": {"nte": "zstd"}}, "codec"),
        ({"codec": {"net": "gzip"}}, "codec"),
    ],
)
def test_arguments_that_cannot_be_written_are_refused_before_anything_is(
    tmp_path: Path, arguments: dict[str, Any], what: str
) -> None:
    with pytest.raises(StateError, match=what):
        ckptfmt.save({"net": {"w": np.ones(2)}}, tmp_path / "a.ckptfmt", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "given", "noted"),
    [
        ({"net": {}, "epoch": 3}, None, 4),  # the documented loop: the last one done, counted from 0
        ({"net": {}, "epoch": 3}, 7, 7),
        ({"net": {}, "epoch": 0}, None, 1),
        ({"net": {}, "epoch": -1}, None, None),
        ({"net": {}, "epoch": True}, None, None),
        ({"epoch": 3}, None, None),
    ],
)
def test_epoch_in_the_state_tells_how_many_are_finished(
    tmp_path: Path, state: dict[str, Any], given: int | None, noted: int | None
) -> None:
    ckptfmt.save(state, tmp_path / "a", epoch=given)
    with ckptfmt.open(tmp_path / "a") as checkpoint:
        assert checkpoint.metadata.epoch == noted


def test_codec_per_component(tmp_path: Path) -> None:
    state = {"net": {"w": np.zeros(10_000)}, "opt": {"m": np.zeros(10_000)}}
    ckptfmt.save(state, tmp_path / "a", codec={"opt": "zstd"})
    with ckptfmt.open(tmp_path / "a") as checkpoint:
        assert checkpoint["net"].codec == "none"
        assert checkpoint["opt"].codec == "zstd"
        assert checkpoint["opt"].stored_bytes < 1000 < checkpoint["opt"].logical_bytes
