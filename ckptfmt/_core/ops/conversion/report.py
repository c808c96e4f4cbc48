"""The report of a conversion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ckptfmt._core.format.packing import TensorRef
from ckptfmt._core.format.trees import walk
from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.findings import Findings

__all__ = ["Alias", "ConvertReport", "aliases_of"]


@dataclass(frozen=True)
class Alias:
    """A tensor that appears in several places and is stored once: tied weights.

    Attributes:
        component: Name of its component.
        tensor: Its name there.
        places: Number of places where it appears.
    """

    component: str
    tensor: str
    places: int

    def to_json(self) -> dict[str, object]:
        """Return it in JSON: the attributes under their names."""
        return {"component": self.component, "tensor": self.tensor, "places": self.places}


@dataclass(frozen=True)
class ConvertReport:
    """Report of a conversion or export.

    Attributes:
        source: The file or directory that was read.
        target: The file or directory that was written.
        form: Format of the source: `pth zip`, `safetensors`, `hf trainer`, ...
        source_bytes: Its length.
        target_form: Format of the target: `ckptfmt`, `safetensors`, `pth`, `npz` or `hf`.
        target_bytes: Its length; for a directory, that of all files in it.
        identity: Identity of the target (spec 12.1); None if the format has none.
        components: Names of the components that were written.
        tensors: Number of their tensors.
        tensor_bytes: Total length of these tensors.
        epoch: Epochs finished; None if the source does not record it.
        step: Steps done; None if the source does not record it.
        aliases: Tensors that appear in several places.
        findings: What else was found in the source.
        compared: Number of tensors that were read again on both sides and are equal; None without a check.
    """

    source: str
    target: str
    form: str
    source_bytes: int
    target_form: str
    target_bytes: int
    identity: str | None
    components: tuple[str, ...]
    tensors: int
    tensor_bytes: int
    epoch: int | None
    step: int | None
    aliases: tuple[Alias, ...]
    findings: Findings
    compared: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the report in JSON.

        Keys: `report` (`"convert/1"`), the attributes under their names (`aliases`: array, see `Alias.to_json`), and
        the keys of `Findings.to_json` in place of `findings`.
        """
        return {
            "report": "convert/1",
            "source": self.source,
            "target": self.target,
            "form": self.form,
            "source_bytes": self.source_bytes,
            "target_form": self.target_form,
            "target_bytes": self.target_bytes,
            "identity": self.identity,
            "components": list(self.components),
            "tensors": self.tensors,
            "tensor_bytes": self.tensor_bytes,
            "epoch": self.epoch,
            "step": self.step,
            "aliases": [alias.to_json() for alias in self.aliases],
            "compared": self.compared,
            **self.findings.to_json(),
        }


def aliases_of(file: TensorFile) -> tuple[Alias, ...]:
    """Return the tensors that appear in several places of their component."""
    found = []
    for part in file.components.values():
        places = Counter(node.name for node in walk(part.tree()) if isinstance(node, TensorRef))
        found += [Alias(part.name, name, count) for name, count in places.items() if count > 1]
    return tuple(found)
