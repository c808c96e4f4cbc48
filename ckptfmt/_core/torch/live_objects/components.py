"""Check of the mapping of components that a caller passes: names and objects."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from ckptfmt._core.format.index import are_component_names, is_component_name
from ckptfmt._core.torch.live_objects.generators import as_stateful
from ckptfmt._core.torch.live_objects.live_values import as_live_values
from ckptfmt._core.training.stateful import Stateful
from ckptfmt.errors import UsageError

__all__ = ["checked_components", "name_list", "refuse_keywords"]

_STATE_KEYS = ({"state", "param_groups"}, {"last_epoch", "_step_count"}, {"scale", "_growth_tracker"})
_EXAMPLE = '{"net": net, "optimizer": optimizer}'


def checked_components(
    components: object, reserved: Collection[str] = (), options: Collection[str] = ()
) -> dict[str, Stateful]:
    """Return the components by name, each as an object with `state_dict()` and `load_state_dict()`.

    A component that is None is left out.

    Args:
        components: The mapping from the caller.
        reserved: Names that no component may have.
        options: Names of the caller's options, to recognize one among the components.

    Raises:
        UsageError: The value is not a mapping, a name cannot name a component (spec 6), or an object has no
            `state_dict()` and `load_state_dict()`.
    """
    if components is None:
        raise UsageError(f"no components; pass a mapping such as {_EXAMPLE}, or {{}} to save none")
    if not isinstance(components, Mapping):
        raise UsageError(f"components are a {_kind(components)}; pass a mapping such as {_EXAMPLE}")
    if _is_state_dict(components):
        raise UsageError(f"components are a state dict; pass a mapping of names to objects such as {_EXAMPLE}")
    checked = {
        name: _checked(name, component, reserved, options)
        for name, component in components.items()
        if component is not None
    }
    if not are_component_names(checked):
        raise UsageError(f"components {', '.join(map(repr, checked))}: two names differ in case only; rename one")
    return checked


def refuse_keywords(call: str, options: Collection[str], components: object, keywords: Mapping[str, object]) -> None:
    """Refuse keywords that are not options: components, or misspelled options.

    Args:
        call: Start of the call, such as `Checkpointer(train_url`.
        options: Names of the options.
        components: The value passed as `components`.
        keywords: The keywords.

    Raises:
        UsageError: There is such a keyword; the error shows what to write.
    """
    if not keywords:
        return
    if any(isinstance(as_stateful(value), Stateful) for value in keywords.values()):
        names = [*(components if isinstance(components, Mapping) else ()), *keywords]
        mapping = ", ".join(f'"{name}": {name}' for name in names)
        raise UsageError(
            f"components passed as keywords: {', '.join(keywords)}; pass one mapping as the second argument: "
            f"{call}, {{{mapping}}})"
        )
    name = next(iter(keywords))
    close = difflib.get_close_matches(name, options, n=1)
    advice = f"did you mean {close[0]}?" if close else f"choose from: {', '.join(options)}"
    raise UsageError(f"{name}= is not an option; {advice}")


def name_list(option: str, names: Collection[str]) -> frozenset[str]:
    """Return the names in an option.

    Raises:
        UsageError: The option is a single str, which would count as the list of its letters.
    """
    if isinstance(names, str):
        raise UsageError(f"{option} is {names!r}; pass a list of names")
    return frozenset(names)


def _checked(name: object, component: object, reserved: Collection[str], options: Collection[str]) -> Stateful:
    if not isinstance(name, str) or not is_component_name(name):
        rule = "at most 148 ASCII letters, digits and _ . -, neither with _ in front nor a name that Windows reserves"
        raise UsageError(f"{name!r} cannot name a component; use {rule}")
    if name in reserved:
        raise UsageError(f"{name!r} is reserved; choose another name for the component")
    if isinstance(component, type):
        raise UsageError(f"component {name!r} is the class {component.__qualname__}; pass an instance")
    stateful = as_stateful(component)
    if isinstance(stateful, Stateful):
        return stateful
    if isinstance(component, Mapping) and _is_state_dict(component):
        found = f"component {name!r} is a state dict"
        raise UsageError(f"{found}, a frozen copy that training does not update; pass the object itself")
    values = as_live_values(component)
    if values is not None:
        values.require(f"component {name!r}")
        return values
    kind = _kind(component)
    if isinstance(component, int | float | complex | str | bytes):
        close = difflib.get_close_matches(name, options, n=1, cutoff=0.8)
        if close:
            raise UsageError(f"component {name!r} is a plain {kind}; did you mean the option {close[0]}=?")
        found = f"component {name!r} is a plain {kind}, which cannot be restored in place"
        raise UsageError(f"{found}; declare it: {_holder(name)}")
    if hasattr(component, "reset") and hasattr(component, "step"):
        raise UsageError(
            f"component {name!r} ({kind}) is an environment without state_dict() and load_state_dict(); add both in a "
            "wrapper, or leave it out and reset it, seeded, at the beginning of each step"
        )
    raise UsageError(
        f"component {name!r} ({kind}) has no state_dict() and load_state_dict(); add both, or declare the values to "
        f"keep: {_holder('best')}"
    )


def _holder(name: str) -> str:
    return f"state = ckpt.variables({name}=...), before resume(), and use state.{name}"


def _is_state_dict(value: Mapping[str, object]) -> bool:
    """Return whether a mapping is the state of a module, an optimizer, a scheduler or a scaler."""
    return hasattr(value, "_metadata") or any(keys <= value.keys() for keys in _STATE_KEYS)


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
