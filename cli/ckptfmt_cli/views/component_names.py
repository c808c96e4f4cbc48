"""Names of components for people: a file without components has one, whose name nobody gave it."""

from __future__ import annotations

from dataclasses import replace

from ckptfmt._core.format.index import ROOT
from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.ops.inspection.component_roles import Role
from ckptfmt._core.ops.inspection.inspect import ComponentInfo, InspectReport

__all__ = ["is_unnamed", "role_name", "tensor_name", "with_shown_names"]

_WEIGHTS, _OTHER = "net", "state"


def is_unnamed(name: str) -> bool:
    """Say whether a component is the only one of a file without components."""
    return name == ROOT


def tensor_name(tensor: TensorInfo, separator: str) -> str:
    """Return the name of a tensor, after that of its component if it has a name."""
    return tensor.name if is_unnamed(tensor.component) else f"{tensor.component}{separator}{tensor.name}"


def role_name(component: ComponentInfo) -> str:
    """Return the name, after its role, of a component that has none."""
    return _WEIGHTS if component.role is Role.WEIGHTS else _OTHER


def with_shown_names(report: InspectReport) -> InspectReport:
    """Return the report with a component that has no name called after its role."""
    if not any(is_unnamed(item.name) for item in report.components):
        return report
    (component,) = report.components
    name = role_name(component)
    tensors = tuple(tensor._replace(component=name) for tensor in report.tensors)
    return replace(report, components=(replace(component, name=name),), tensors=tensors)
