"""Invalid vectors for section 5 and clause 16.1: the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spec.vectors.making.container import (
    File,
    Member,
    opaque,
    safetensors,
)
from spec.vectors.making.samples import floats
from spec.vectors.making.values import Map, Raw, TensorName, Timestamp, Tuple, pack
from spec.vectors.making.vector import Vector, invalid

ONE = opaque("one", b"1")
NET = safetensors("net.safetensors", [floats("w", 1.0, 2.0)])
ZIP = opaque("log", b"text " * 20, codec="zstd")
SCHEMA = "index-schema"


def all_index() -> Iterator[Vector]:
    """Every vector of this module."""
    yield from _index()
    yield from _metadata()
    yield from _entries()
    yield from _versions()


def _index() -> Iterator[Vector]:
    def index(slug: str, description: str, value: object, problem: str = SCHEMA, **options: str) -> Vector:
        return invalid(slug, description, problem, File([], index=pack(value)), **options)

    good = File().index_map()
    yield index("5.1-array", "The index is an array", list(good.values()))
    for key in good:
        rest = {name: value for name, value in good.items() if name != key}
        yield index(f"5.1-no-{key.replace('_', '-')}", f"The index lacks {key}", rest)
    yield index("5.1-unknown-key", "A key that version 1.0 does not know", {**good, "x": 1}, clauses="16.1")
    yield index("5.1-key-not-str", "A key that is not a str", Map([*good.items(), (1, 1)]))
    yield index("5.1-order", "The keys in another order", dict(reversed(good.items())))
    wrong: dict[str, Mapping[str, object]] = {
        "features-map": {"required_features": {}},
        "features-nil": {"required_features": None},
        "features-not-str": {"required_features": [b"x"]},
        "metadata-array": {"metadata": []},
        "members-map": {"members": {}},
        "member-array": {"members": [[]]},
    }
    for slug, change in wrong.items():
        yield index(f"5.1-{slug}", f"A value of a wrong type: {slug}", {**good, **change})
    for slug, features in (
        ("unsorted", ["b", "a"]),
        ("repeated", ["a", "a"]),
        ("sorted-as-text", ["\U00010000", "\uffff"]),
    ):
        description = f"required_features is {features!a}: not sorted by bytes, or with a repetition"
        made = index(
            f"5.1-features-{slug}", description, {**good, "required_features": features}, also="feature-unknown"
        )
        yield made
    description = "A feature that version 1.0 does not know"
    yield index(
        "5.2-feature", description, {**good, "required_features": ["sparse"]}, "feature-unknown", clauses="16.2"
    )
    sharded = {**good, "required_features": ["sharded"]}
    description = "The feature of checkpoints in several files, which is reserved"
    yield index("5.2-feature-sharded", description, sharded, "feature-unknown", clauses="16.4")
    yield index(
        "5.2-feature-empty", "A feature with an empty name", {**good, "required_features": [""]}, "feature-unknown"
    )
    explained: dict[str, dict[str, object]] = {
        "key": {**good, "required_features": ["x"], "new": 1},
        "metadata": {**good, "required_features": ["x"], "metadata": {"new": 1}},
        "members": {**good, "required_features": ["x"], "members": {"net": 1}},
        "member": {**good, "required_features": ["x"], "members": [{"name": "net"}]},
        "order": {"members": [], "metadata": {}, "required_features": ["x"]},
        "alone": {"required_features": ["x"]},
    }
    for what, changed in explained.items():
        description = f"A feature that is not known, and an index that only it can explain: {what}"
        yield index(f"5.2-feature-and-{what}", description, changed, "feature-unknown")
    bad = "msgpack-invalid"
    yield index("10.1-index-empty-nil", "The index is nil", None)
    yield index("10.1-index-trailing-byte", "A byte behind the index's value", Raw(pack(good) + b"\xc0"), bad)
    yield index("10.1-index-ends-early", "The last byte of the index is missing", Raw(pack(good)[:-1]), bad)
    long_key = Raw(b"\xd9\x11required_features")
    pairs = [(long_key, []), *list(good.items())[1:]]
    yield index("10.2-index-str", "A key in a longer format than it needs", Map(pairs), "msgpack-canonical")
    twice = Map([*good.items(), ("members", [])])
    yield index("10.3-index-key-twice", "members stands twice", twice, "msgpack-key")
    deep: object = []
    for _ in range(63):
        deep = [deep]
    yield index(
        "13.1-index-depth",
        "The index is nested 65 deep",
        {**good, "metadata": {"user": {"": deep}}},
        "limit-depth",
        clauses="10.5",
    )
    many = {**good, "metadata": {"user": {"": Raw(b"\xdd\x01\0\0\0")}}}
    yield index(
        "13.1-index-values",
        "An array of 2^24 elements in the index",
        many,
        "limit-values",
        clauses="10.5",
    )
    largest = {**good, "metadata": {"user": {"": Raw(b"\xc6\xff\xff\xff\xff")}}}
    yield index("10.1-index-bin-2-32", "A bin of 2^32 - 1 bytes in a small index", largest, bad)
    for slug, value in (
        ("tensor", TensorName("w")),
        ("tuple", Tuple([1])),
        ("big-integer", 1 << 64),
        ("unknown", Raw(b"\xd4\x07\0")),
        ("negative", Raw(b"\xd4\xfe\0")),
    ):
        user = {"user": {"x": value}}
        yield index(
            f"10.6-index-{slug}", f"An ext value in the index: {slug}", {**good, "metadata": user}, clauses="5.1"
        )


def _metadata() -> Iterator[Vector]:
    wrong: dict[str, tuple[str, Mapping[str, object]]] = {
        "unknown-key": ("A key that version 1.0 does not know", {"host": "x"}),
        "order": ("The keys in another order", {"step": 1, "run_id": "a"}),
        "run-id-empty": ("An empty run_id", {"run_id": ""}),
        "run-id-257-bytes": ("A run_id of 257 bytes, 129 characters", {"run_id": "é" * 128 + "a"}),
        "run-id-bin": ("run_id is a bin", {"run_id": b"a"}),
        "run-id-nil": ("run_id is nil", {"run_id": None}),
        "generation-negative": ("generation is -1", {"generation": -1}),
        "generation-2-63": ("generation is 2^63", {"generation": 1 << 63}),
        "generation-float": ("generation is 1.0", {"generation": 1.0}),
        "generation-order": ("generation comes before run_id", {"generation": 1, "run_id": "a"}),
        "step-negative": ("step is -1", {"step": -1}),
        "step-2-63": ("step is 2^63", {"step": 1 << 63}),
        "step-float": ("step is 1.0", {"step": 1.0}),
        "step-true": ("step is true", {"step": True}),
        "epoch-str": ("epoch is a str", {"epoch": "3"}),
        "epoch-2-63": ("epoch is 2^63", {"epoch": 1 << 63}),
        "metrics-integer": ("A metric is an integer", {"metrics": {"loss": 1}}),
        "metrics-nil": ("A metric is nil", {"metrics": {"loss": None}}),
        "metrics-key": ("The name of a metric is not a str", {"metrics": Map([(1, 1.0)])}),
        "metrics-mixed": ("One of two metrics is an integer", {"metrics": {"loss": 1.0, "steps": 1}}),
        "metrics-key-mixed": ("One of two names of metrics is not a str", {"metrics": Map([("a", 1.0), (1, 1.0)])}),
        "metrics-array": ("metrics is an array", {"metrics": []}),
        "created-number": ("created is an integer", {"created": 1_700_000_000}),
        "created-text": ("created is a str", {"created": "2024-01-01T00:00:00Z"}),
        "created-nanoseconds": ("created is not in whole microseconds", {"created": Timestamp(1, 1)}),
        "created-year-0": ("created is before the year 1", {"created": Timestamp(-62_135_596_801)}),
        "created-year-10000": ("created is after the year 9999", {"created": Timestamp(253_402_300_800)}),
        "parent-short": ("parent has 31 bytes", {"parent": bytes(31)}),
        "parent-long": ("parent has 33 bytes", {"parent": bytes(33)}),
        "parent-text": ("parent is a str", {"parent": "0" * 32}),
        "producer-bin": ("producer is a bin", {"producer": b"x"}),
        "user-array": ("user is an array", {"user": []}),
        "user-key-mixed": ("One of two keys of user is not a str", {"user": Map([("a", 1), (1, 1)])}),
        "user-key": ("A key of user is not a str", {"user": Map([(1, 1)])}),
    }
    for slug, (description, metadata) in wrong.items():
        yield invalid(f"5.3-{slug}", description, SCHEMA, File(metadata=metadata))
    yield invalid("5.3-key-not-str", "A key that is not a str", SCHEMA, File(metadata=Raw(pack(Map([(1, 1)])))))
    twice = File(metadata=Raw(pack(Map([("step", 1), ("step", 1)]))))
    yield invalid("5.3-key-twice", "step stands twice", "msgpack-key", twice, clauses="10.3")


def _entries() -> Iterator[Vector]:
    def entry(slug: str, description: str, made: Member, pairs: object) -> Vector:
        file = File([made])
        return invalid(slug, description, SCHEMA, file.with_index(members=[pairs]))

    for made, kind in ((NET, "safetensors"), (ZIP, "zstd")):
        good = File([made]).index_map()["members"][0]
        for key in good:
            if kind == "zstd" and key not in ("stored_chunk_bytes", "stored_digests"):
                continue
            rest = {name: value for name, value in good.items() if name != key}
            yield entry(f"5.4-no-{key.replace('_', '-')}", f"An entry lacks {key}", made, rest)
    good = File([ONE]).index_map()["members"][0]
    yield entry("5.4-unknown-key", "A key that version 1.0 does not know", ONE, {**good, "x": 1})
    yield entry("5.4-order", "The keys in another order", ONE, dict(sorted(good.items())))
    extra = {"header": b"{}", "stored_chunk_bytes": [1], "stored_digests": good["digests"]}
    for key, value in extra.items():
        order = ("name", "codec", "offset", "stored_bytes", "logical_bytes", "header", "digests", *extra)
        record = {name: {**good, key: value}[name] for name in dict.fromkeys(order) if name in {**good, key: value}}
        yield entry(f"5.4-{key.replace('_', '-')}-too-many", f"{key} where it must be absent", ONE, record)
    wrong: dict[str, Mapping[str, object]] = {
        "name-bin": {"name": b"one"},
        "codec-nil": {"codec": None},
        "offset-float": {"offset": 4096.0},
        "offset-2-63": {"offset": 1 << 63},
        "offset-negative": {"offset": -4096},
        "stored-bytes-true": {"stored_bytes": True},
        "stored-bytes-2-63": {"stored_bytes": 1 << 63},
        "logical-bytes-2-63": {"logical_bytes": 1 << 63},
        "logical-bytes-negative": {"logical_bytes": -1},
        "digests-str": {"digests": "x" * 32},
        "digests-array": {"digests": [good["digests"]]},
    }
    for slug, change in wrong.items():
        yield entry(f"5.4-{slug}", f"A wrong type or a number out of range: {slug}", ONE, {**good, **change})
    good = File([ZIP]).index_map()["members"][0]
    wrong = {
        "chunk-bytes-nil": {"stored_chunk_bytes": None},
        "chunk-bytes-bin": {"stored_chunk_bytes": b"\x01"},
        "chunk-bytes-negative": {"stored_chunk_bytes": [-1]},
        "chunk-bytes-2-63": {"stored_chunk_bytes": [1 << 63]},
        "chunk-bytes-float": {"stored_chunk_bytes": [float(len(ZIP.stored))]},
        "stored-digests-str": {"stored_digests": "x" * 32},
    }
    for slug, change in wrong.items():
        yield entry(f"5.4-{slug}", f"A wrong type or a number out of range: {slug}", ZIP, {**good, **change})
    good = File([NET]).index_map()["members"][0]
    header = good["header"].decode()
    yield entry("5.4-header-str", "header is a str", NET, {**good, "header": header})


def _versions() -> Iterator[Vector]:
    newer = File([ONE], minor=1)
    index = Map([("x", 1), *reversed(newer.index_map().items())])
    description = "Known keys in a wrong order are refused in a newer minor too"
    yield invalid("16.1-order", description, SCHEMA, File([ONE], minor=1, index=pack(index)), clauses="5.1")
    description = "A known key of a wrong type is refused in a newer minor too"
    yield invalid("16.1-type", description, SCHEMA, File([ONE], {"new": 1, "step": "1"}, minor=1), clauses="5.3")
    entries = [{key: value for key, value in newer.entries()[0].items() if key != "codec"}]
    description = "A missing key is refused in a newer minor too"
    yield invalid("16.1-missing", description, SCHEMA, newer.with_index(members=entries), clauses="5.4")
    plain = newer.entries()[0]
    for key, value in (("header", b"{}"), ("stored_digests", plain["digests"])):
        place = list(plain).index("digests") + (key != "header")
        pairs = [*list(plain.items())[:place], (key, value), *list(plain.items())[place:]]
        slug = f"16.1-{key.replace('_', '-')}-too-many"
        description = f"A newer minor with {key} where it must be absent: a key that is known"
        yield invalid(slug, description, SCHEMA, newer.with_index(members=[Map(pairs)]), clauses="5.4")
    description = "An unknown key with a value outside the plain profile"
    yield invalid("16.1-ext", description, SCHEMA, newer.with_index(x=TensorName("w")), clauses="10.6")
    twice = pack(Map([*newer.index_map().items(), ("new", 1), ("new", 1)]))
    yield invalid(
        "16.1-key-twice",
        "An unknown key stands twice",
        "msgpack-key",
        File([ONE], minor=1, index=twice),
        clauses="10.3",
    )
    feature = File([ONE], features=["new"], minor=1, index=None)
    yield invalid("16.2-feature", "A newer minor that requires a feature", "feature-unknown", feature, clauses="5.2")
