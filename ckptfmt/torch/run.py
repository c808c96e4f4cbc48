"""The live objects of a training run, and their state at one moment as a plan to be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ckptfmt.errors import StateError
from ckptfmt.format.index import is_component_name
from ckptfmt.per_rank import PerRank
from ckptfmt.planning import SavePlan, choose_codecs, make_metadata
from ckptfmt.torch import io, ranks
from ckptfmt.torch.capturing import capture_components
from ckptfmt.torch.failures import UsageError
from ckptfmt.torch.generators import as_stateful
from ckptfmt.torch.progress import Moment
from ckptfmt.torch.stateful import Stateful
from ckptfmt.torch.weights import Ancestor

__all__ = ["PROGRESS", "RNG", "Run", "of_this_rank"]

RNG = "rng"
"""Component of the random states: of one process, or a `PerRank`."""
PROGRESS = "progress"
"""Component of the place in the run: of one process, or a `PerRank`."""


class Run:
    """The objects of a run, and the facts about it that are written into each checkpoint.

    Args:
        directory: Where its checkpoints are.
        run_id: Its id, if it is known.
        components: The objects by name.
        codec: How they are compressed.

    Attributes:
        directory: Where its checkpoints are.
        id: Its id; None as long as it is not known.
        lineage: The file that it started from, then what that one's run started from, and so on.
        components: The objects by name.
    """

    def __init__(
        self,
        directory: str,
        run_id: str | None,
        components: Mapping[str, object],
        codec: str | Mapping[str, str],
    ) -> None:
        self.directory = directory
        self.id = run_id
        self.lineage: tuple[Ancestor, ...] = ()
        self.components = _checked(components)
        self._codec = codec
        try:
            choose_codecs(codec, [*self.components, RNG, PROGRESS])
        except StateError as error:
            raise UsageError(str(error)) from None

    @property
    def parent(self) -> str | None:
        """Identity of the file that it started from, 64 hex digits; None if it started from none."""
        return self.lineage[0].identity if self.lineage else None

    def gather(self, moment: Callable[[], Moment]) -> list[dict[str, Any]] | None:
        """Bring what each rank remembers to rank 0, by component; None on the others. All ranks have to call it.

        Args:
            moment: Returns what this rank remembers.

        Raises:
            Exception: What it raised; RankError on the ranks where it did not.
        """

        def own() -> dict[str, Any]:
            progress, random = moment()
            return {RNG: random, PROGRESS: progress.to_tree()}

        return ranks.gather(own)

    def plan(self, everywhere: list[dict[str, Any]], metrics: Mapping[str, float]) -> SavePlan:
        """Return the plan of a checkpoint of the present state.

        Args:
            everywhere: What `gather` returned.
            metrics: Values to note.

        Raises:
            StateError: A component's state cannot be expressed.
        """
        state = capture_components(self.components)
        for name in (RNG, PROGRESS):
            own = tuple(remembered[name] for remembered in everywhere)
            state[name] = own[0] if len(own) == 1 else PerRank(own)
        place = everywhere[0][PROGRESS]
        metadata = make_metadata(
            state,
            step=place["step"],
            epoch=place["epoch"],
            metrics=metrics or None,
            run_id=self.id,
            parent=self.parent,
            user={"lineage": [_noted(ancestor) for ancestor in self.lineage]} if self.lineage else None,
        )
        return io.plan_state(state, metadata=metadata, codec=self._codec)


def of_this_rank(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loaded state with the random states and the place in the run of this rank.

    A component of which the checkpoint has nothing for this rank is left out.
    """
    rank, size = ranks.world()
    own = dict(state)
    for name in (RNG, PROGRESS):
        if name in own:
            tree = own[name]
            everywhere = tree.values if isinstance(tree, PerRank) else (tree,)
            if len(everywhere) == size:
                own[name] = everywhere[rank]
            else:
                del own[name]
    return own


def _checked(components: Mapping[str, object]) -> dict[str, Stateful]:
    checked = {}
    for name, component in components.items():
        if name in (RNG, PROGRESS) or not is_component_name(name):
            raise UsageError(f"{name!r} cannot be the name of a component: it is reserved or not of A-Z a-z 0-9 _ . -")
        stateful = as_stateful(component)
        if not isinstance(stateful, Stateful):
            raise UsageError(f"{name} is a {type(component)} without state_dict() and load_state_dict()")
        checked[name] = stateful
    return checked


def _noted(ancestor: Ancestor) -> dict[str, Any]:
    return {key: value for key, value in asdict(ancestor).items() if value is not None}
