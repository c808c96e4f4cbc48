"""Those that are compared, each saved and restored as its own documentation says."""

from __future__ import annotations

from benchmarks.contenders.base import AsyncContender, Contender, Missing
from benchmarks.contenders.ckptfmt_ import Ckptfmt, CkptfmtLoad
from benchmarks.contenders.dcp import Dcp
from benchmarks.contenders.moonclip_ import Moonclip
from benchmarks.contenders.orbax_ import Orbax
from benchmarks.contenders.safetensors_ import Safetensors
from benchmarks.contenders.tensorizer_ import Tensorizer
from benchmarks.contenders.torch_ import TorchMmap, TorchSave
from benchmarks.contenders.ztensor_ import Ztensor

__all__ = ["CONTENDERS", "AsyncContender", "Contender", "Missing"]

CONTENDERS: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (Ckptfmt, CkptfmtLoad, TorchSave, TorchMmap, Safetensors, Dcp, Ztensor, Tensorizer, Orbax, Moonclip)
}
"""By name, in the order of the tables."""
