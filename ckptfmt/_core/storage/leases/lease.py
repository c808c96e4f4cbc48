"""What a lease says: which process saves a run, and as which generation (spec, annex B). Pure.

A lease is a small JSON object beside the checkpoints, one for each run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ckptfmt._core.format.digest import digest

__all__ = ["DamagedLeaseError", "Holder", "Lease", "decode_lease", "encode_lease", "is_lease_name", "lease_name"]

_VERSION = 1
_PREFIX, _SUFFIX = ".ckptfmt.", ".lease"
_NAME_DIGITS = 32


@dataclass(frozen=True)
class Holder:
    """A process that saves a run.

    Attributes:
        host: Name of its machine, for people.
        pid: Its number there.
        machine: What all processes on one kernel share, and no others, from one boot to the next.
        process: What tells it from a later process of the same number; empty if the system does not tell.
        since: When it claimed the run, in ISO 8601, UTC.
        job: The job that it belongs to, if a scheduler or launcher named one.
        launcher: Number of the process that started it, if that watches over it.
    """

    host: str
    pid: int
    machine: str
    process: str
    since: str
    job: str | None = None
    launcher: int | None = None

    def __str__(self) -> str:
        job = "" if self.job is None else f" (job {self.job})"
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@dataclass(frozen=True)
class Lease:
    """What a lease says.

    Attributes:
        run_id: The run.
        generation: How many times it was claimed.
        claim: Tells this claim from every other one.
        holder: Who made it; None once it saves the run no more.
    """

    run_id: str
    generation: int
    claim: str
    holder: Holder | None


class DamagedLeaseError(Exception):
    """Why something that has the name of a lease is none. Only the modules that read leases handle it.

    Attributes:
        of_a_later_program: It may hold a claim, in a form that this program does not know. Otherwise it holds none:
            leases appear whole.
    """

    def __init__(self, found: str, *, of_a_later_program: bool = False) -> None:
        super().__init__(found)
        self.of_a_later_program = of_a_later_program


def lease_name(run_id: str) -> str:
    """Return the name of the lease of a run: hidden, and valid in any store, whatever the run is called."""
    return f"{_PREFIX}{digest(run_id.encode(errors='surrogatepass')).hex()[:_NAME_DIGITS]}{_SUFFIX}"


def is_lease_name(name: str) -> bool:
    """Return whether a name is that of a lease."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def encode_lease(lease: Lease, *, beat: int | None = None) -> bytes:
    """Return the bytes of a lease.

    Args:
        lease: What it says.
        beat: A number that its holder changes now and then to show that it is alive; None where it does so otherwise.
    """
    holder = None if lease.holder is None else {k: v for k, v in asdict(lease.holder).items() if v is not None}
    facts: dict[str, Any] = {
        "lease": _VERSION,
        "run_id": lease.run_id,
        "generation": lease.generation,
        "claim": lease.claim,
        "holder": holder,
    }
    if beat is not None:
        facts["beat"] = beat
    return json.dumps(facts, indent=1).encode() + b"\n"


def decode_lease(content: bytes) -> Lease:
    """Return what a lease says.

    Raises:
        DamagedLeaseError: It says nothing that this program understands.
    """
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError):
        raise DamagedLeaseError("its content is no JSON") from None
    try:
        version = _of(facts, "lease", int)
        if version > _VERSION:
            found = f"its version is {version}, and this program knows version {_VERSION}"
            raise DamagedLeaseError(found, of_a_later_program=True)
        return _decode(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedLeaseError(str(error.args[0])) from error


def _decode(facts: Any) -> Lease:
    if _of(facts, "lease", int) != _VERSION:
        raise ValueError("its version is none")
    if "holder" not in facts:
        raise KeyError("its 'holder' is missing")
    holder = facts["holder"]
    if _of(facts, "generation", int) < 0:
        raise ValueError("the generation is negative")
    return Lease(
        _of(facts, "run_id", str),
        _of(facts, "generation", int),
        _of(facts, "claim", str),
        None if holder is None else _decode_holder(holder),
    )


def _decode_holder(facts: Mapping[str, Any]) -> Holder:
    texts = {name: _of(facts, name, str) for name in ("host", "machine", "process", "since")}
    job = _of(facts, "job", str) if "job" in facts else None
    launcher = _of(facts, "launcher", int) if "launcher" in facts else None
    return Holder(pid=_of(facts, "pid", int), job=job, launcher=launcher, **texts)


def _of(facts: Mapping[str, Any], name: str, kind: type) -> Any:
    value = facts[name] if isinstance(facts, dict) else None
    if type(value) is not kind:
        raise TypeError(f"its {name!r} is missing or of another type")
    return value
