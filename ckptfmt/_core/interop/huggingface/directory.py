"""Directories that are one checkpoint: models and Trainer checkpoints of Hugging Face, states of Accelerate."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.packing import Typed
from ckptfmt._core.format.trees import PER_RANK
from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.interop.findings import Findings, merged_findings
from ckptfmt._core.interop.huggingface.weights import file_in, find_weights, open_weights, read_json
from ckptfmt._core.interop.readers.pth import open_file
from ckptfmt._core.interop.readers.state_components import components_of
from ckptfmt._core.interop.training_facts import as_float, count
from ckptfmt._core.storage import open_source, store_for
from ckptfmt.errors import ForeignFileError, StateError, StorageError

__all__ = ["CheckpointDirectory", "is_checkpoint_directory", "open_directory"]

_CONFIG, _TRAINER_STATE = "config.json", "trainer_state.json"
_RNG_OF_TRAINER = re.compile(r"rng_state(?:_(\d{1,6}))?\.pth")
_RNG_OF_ACCELERATE = re.compile(r"random_states_(\d{1,6})\.pkl")
_OF_ACCELERATE = re.compile(r"(optimizer|scheduler|sampler|custom_checkpoint)(?:_(\d{1,4}))?\.(?:bin|pkl)")
_TRAINER_FILES = {"optimizer.pt": "optimizer", "scheduler.pt": "scheduler", "scaler.pt": "scaler"}
_ARGUMENTS = "training_args.bin"
_LEFT = "it is no part of the state; it stays where it is"

# What each calls a generator's state, and what the training loop calls it.
_TRAINER_GENERATORS = {"python": "python", "numpy": "numpy", "cpu": "torch", "cuda": "cuda", "xpu": "xpu", "mps": "mps"}
_ACCELERATE_GENERATORS = {
    "random_state": "python",
    "numpy_random_seed": "numpy",
    "torch_manual_seed": "torch",
    "torch_cuda_manual_seed": "cuda",
    "torch_xpu_manual_seed": "xpu",
}
_ON_DEVICES = ("cuda", "xpu", "mps")


class CheckpointDirectory(TensorFile):
    """A directory that is one checkpoint.

    Attributes:
        files: The open files in it.
    """

    def __init__(self, path: str, found: _Found) -> None:
        self.path = path
        self.paths = tuple(str(found.directory / name) for name in sorted(found.used))
        self.form = found.form
        self.files = tuple(found.files)
        self.metadata = found.metadata
        entries = {entry.name: entry for entry in store_for(path).list()}
        self.file_bytes = sum(entries[name].nbytes or 0 for name in found.used if name in entries)
        self._left = sorted(found.names - found.used)
        self._state = found.state
        self._components = components_of(found.state, found.text)

    @property
    def state(self) -> object:
        """See `TensorFile.state`: what each component holds, by name."""
        return self._state

    @property
    def components(self) -> Mapping[str, ComponentSource]:
        """See `TensorFile.components`."""
        return self._components

    def findings(self) -> Findings:
        """See `TensorFile.findings`: those of its files, and which files are left out."""
        left = Findings(dropped=tuple(Dropped(name, _LEFT) for name in self._left))
        return merged_findings(self.metadata.producer, [*(file.findings() for file in self.files), left])

    def refuse_unknown(self) -> None:
        """See `TensorFile.refuse_unknown`."""
        for file in self.files:
            file.refuse_unknown()

    def finish(self) -> None:
        """See `TensorFile.finish`."""
        for file in self.files:
            file.finish()

    def close(self) -> None:
        """Release the files."""
        for file in self.files:
            file.close()


@dataclass
class _Found:
    """What is found in a directory, step by step."""

    directory: Path
    names: set[str]
    inert: Collection[str] = ()
    form: str = "hf model"
    state: dict[str, object] = field(default_factory=dict)
    files: list[TensorFile] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    text: dict[str, Mapping[str, str]] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=Metadata)

    def take_weights(self, name: str, component: str) -> None:
        weights = open_weights(self.directory, name, inert=self.inert)
        self.files += weights.files
        self.used |= set(weights.names)
        self.state[component] = weights.state
        if weights.text:
            self.text[component] = weights.text

    def read_pickled(self, name: str) -> object:
        """Return what a file of PyTorch holds."""
        source = open_source(file_in(self.directory, name))
        try:
            file = open_file(source, inert=self.inert)
        except BaseException:
            source.close()
            raise
        self.files.append(file)
        self.used.add(name)
        return file.state

    def take_json(self, name: str, component: str) -> Any:
        document = read_json(file_in(self.directory, name))
        self.used.add(name)
        self.state[component] = document
        return document


def is_checkpoint_directory(path: str | os.PathLike[str]) -> bool:
    """Say whether a directory is one checkpoint, by the names of its files.

    Raises:
        StorageError: It cannot be listed.
    """
    names = _names(Path(path))
    has_weights = find_weights(names) is not None
    return has_weights and (bool(names & {_CONFIG, _TRAINER_STATE}) or _is_accelerate(names))


def open_directory(path: str | os.PathLike[str], *, inert: Collection[str] = ()) -> CheckpointDirectory:
    """Open a directory as the checkpoint that it is.

    Args:
        path: The directory.
        inert: See `interop.opening.open_tensors`.

    Raises:
        UnsafeInputError: A file in it asks for code to be run.
        ForeignFileError: It is no checkpoint, or a file in it is not valid.
        StateError: It holds something that cannot be expressed.
        StorageError: It cannot be read.
    """
    directory = Path(path)
    found = _Found(directory, _names(directory), inert)
    try:
        if _TRAINER_STATE in found.names:
            _read_trainer(found)
        elif _is_accelerate(found.names):
            _read_accelerate(found)
        else:
            _read_model(found)
        return CheckpointDirectory(os.fspath(path), found)
    except BaseException as error:
        for file in found.files:
            file.close()
        if isinstance(error, StateError):
            raise StateError(f"{os.fspath(path)}: {error}", "it cannot be converted whole") from error
        raise


def _names(directory: Path) -> set[str]:
    # A link that leads nowhere has no length.
    return {entry.name for entry in store_for(directory).list() if entry.nbytes is not None}


def _is_accelerate(names: set[str]) -> bool:
    return any(map(_RNG_OF_ACCELERATE.fullmatch, names)) and find_weights(names) is not None


def _read_model(found: _Found) -> None:
    weights = find_weights(found.names)
    if weights is None:
        raise ForeignFileError(
            "the directory has no model.safetensors or pytorch_model.bin, nor an index of shards; "
            "name a file in it, or convert every file in it with `ckptfmt convert --recursive`",
            str(found.directory),
            "checkpoint",
        )
    found.take_weights(weights, "net")
    if _CONFIG in found.names:
        found.take_json(_CONFIG, "config")


def _read_trainer(found: _Found) -> None:
    found.form = "hf trainer"
    _read_model(found)
    for name, component in _TRAINER_FILES.items():
        if name in found.names:
            found.state[component] = found.read_pickled(name)
    _read_random(found, _RNG_OF_TRAINER, _TRAINER_GENERATORS)
    if _ARGUMENTS in found.names:
        found.state["training_args"] = found.read_pickled(_ARGUMENTS)
    state = found.take_json(_TRAINER_STATE, "trainer_state")
    found.metadata = _trainer_metadata(state if isinstance(state, dict) else {})


def _trainer_metadata(state: Mapping[str, object]) -> Metadata:
    step, epoch = state.get("global_step"), state.get("epoch")
    return Metadata(
        step=count(step),
        epoch=count(math.floor(epoch) if type(epoch) is float and math.isfinite(epoch) else epoch),
        metrics=_metrics(state.get("log_history"), step) or None,
        producer="Transformers Trainer",
    )


def _metrics(history: object, step: object) -> dict[str, float]:
    """Return what was logged at a step and is a loss or a measured value."""
    metrics: dict[str, float] = {}
    for entry in history if isinstance(history, list) else []:
        if isinstance(entry, dict) and entry.get("step") == step:
            metrics |= {
                name: value
                for name, value in ((name, as_float(value)) for name, value in entry.items())
                if value is not None and (name == "loss" or name.startswith("eval_"))
            }
    return metrics


def _read_accelerate(found: _Found) -> None:
    found.form = "accelerate"
    number = 0
    while (weights := find_weights(found.names, f"_{number}" if number else "")) is not None:
        found.take_weights(weights, f"net_{number}" if number else "net")
        number += 1
    for name in sorted(found.names):
        match = _OF_ACCELERATE.fullmatch(name)
        if match is not None:
            found.state[match[1] + (f"_{match[2]}" if match[2] else "")] = found.read_pickled(name)
    if "scaler.pt" in found.names:
        found.state["scaler"] = found.read_pickled("scaler.pt")
    _read_random(found, _RNG_OF_ACCELERATE, _ACCELERATE_GENERATORS)
    found.metadata = Metadata(producer="Accelerate")


def _read_random(found: _Found, pattern: re.Pattern[str], generators: Mapping[str, str]) -> None:
    """Take the random states of all processes, in the form in which the training loop saves its own."""
    ranks = {int(match[1] or 0): name for name in found.names if (match := pattern.fullmatch(name)) is not None}
    if not ranks:
        return
    if set(ranks) != set(range(len(ranks))):
        raise StorageError(f"{found.directory}: has random states of {len(ranks)} processes, and not of the first ones")
    states = [_random(found.read_pickled(ranks[rank]), generators) for rank in range(len(ranks))]
    found.state["rng"] = states[0] if len(states) == 1 else Typed(PER_RANK, states)


def _random(state: object, generators: Mapping[str, str]) -> object:
    if not isinstance(state, dict):
        return state
    return {
        generators[name]: _generator(generators[name], value) for name, value in state.items() if name in generators
    }


def _generator(name: str, state: object) -> object:
    """Return a generator's state; of devices a list, one for each."""
    if name in _ON_DEVICES:
        return state if isinstance(state, list) else [state]
    return state
