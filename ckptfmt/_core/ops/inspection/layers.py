"""Names of tensors grouped by the modules that they spell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["layers_of"]


def layers_of(names: Iterable[str], most: int) -> Mapping[str, str]:
    """Return the layer that each tensor belongs to: modules as deep as there are few enough of them.

    Args:
        names: Names of the tensors.
        most: Maximum number of layers, unless there are more at the top.
    """
    parts = {name: name.split(".")[:-1] or [name] for name in names}
    deepest = max((len(path) for path in parts.values()), default=1)
    chosen: dict[str, str] = {}
    for depth in range(1, deepest + 1):
        layers = {name: ".".join(path[:depth]) for name, path in parts.items()}
        if chosen and len(set(layers.values())) > most:
            break
        chosen = layers
    return chosen
