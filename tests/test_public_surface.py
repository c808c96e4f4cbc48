"""The public surface is exactly what is listed here, so that it never changes unnoticed.

The failure shows what has changed: mend the list with it, and tell users in the changelog.
"""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from collections.abc import Iterator
from enum import Enum
from functools import cached_property
from types import FunctionType, ModuleType
from typing import get_type_hints

import pytest

import ckptfmt
import ckptfmt.errors
import ckptfmt.testing.adapters
import ckptfmt.testing.stores
import ckptfmt.torch

MODULES = [ckptfmt, ckptfmt.torch, ckptfmt.errors]

SURFACE = """
ckptfmt.ChangedError
ckptfmt.Checkpoint(source, adapters=None)
ckptfmt.Checkpoint.close(self)
ckptfmt.Checkpoint.fill(self, targets, *, progress=None, make_buffer=...)
ckptfmt.Checkpoint.load(self, rank=None)
ckptfmt.Checkpoint.metadata
ckptfmt.Checkpoint.opaque_members
ckptfmt.Checkpoint.open(path, adapters=None)
ckptfmt.Checkpoint.read_opaque(self, name)
ckptfmt.Checkpoint.verify(self, progress=None)
ckptfmt.CkptfmtError
ckptfmt.Component(source, name, structure_member, tensor_member, adapters)
ckptfmt.Component.codec
ckptfmt.Component.flat
ckptfmt.Component.identity
ckptfmt.Component.load(self, instead=None, tree=...)
ckptfmt.Component.load_rank(self, rank)
ckptfmt.Component.logical_bytes
ckptfmt.Component.members
ckptfmt.Component.read_bytes(self, name)
ckptfmt.Component.stored_bytes
ckptfmt.Component.structure(self)
ckptfmt.Component.tensor_digests(self, name)
ckptfmt.Component.tensors
ckptfmt.Component.text_metadata
ckptfmt.ConvertReport(source, target, form, source_bytes, target_form, target_bytes, identity, components, tensors,
    tensor_bytes, epoch, step, aliases, findings, compared=None)
ckptfmt.ConvertReport.to_json(self)
ckptfmt.ExportError
ckptfmt.ForeignFileError
ckptfmt.FormatError
ckptfmt.HeldError
ckptfmt.IntegrityError
ckptfmt.LeaseError
ckptfmt.LimitError
ckptfmt.LockedError
ckptfmt.Metadata(run_id=None, generation=None, step=None, epoch=None, metrics=None, created=None, parent=None,
    producer=None, user=None)
ckptfmt.MismatchError
ckptfmt.MissingExtraError
ckptfmt.NotFoundError
ckptfmt.PackError
ckptfmt.PerRank(values)
ckptfmt.Problem(code, message, member=None, tensor=None, offset=None)
ckptfmt.RankError
ckptfmt.ReadError
ckptfmt.RestoreError
ckptfmt.ResumeError
ckptfmt.SaveError
ckptfmt.SaveReport(path, identity, file_bytes, components, per_rank=())
ckptfmt.StateError
ckptfmt.StorageError
ckptfmt.SupersededError
ckptfmt.TensorEntry(name, dtype, shape, begin, end)
ckptfmt.TensorEntry.elements
ckptfmt.TensorEntry.nbytes
ckptfmt.TruncatedError
ckptfmt.Typed(name, value)
ckptfmt.UndecidedError
ckptfmt.UnsafeInputError
ckptfmt.UnsupportedFileError
ckptfmt.UnsupportedVersionError
ckptfmt.UsageError
ckptfmt.__version__
ckptfmt.convert(source, target, *, strict=False, inert=(), check=False, codec='none', run_id=None, progress=None)
ckptfmt.export(source, target, *, form=None, component=None, shard_bytes=5000000000, strict=False, inert=(),
    check=False, progress=None)
ckptfmt.load(path, *, rank=None)
ckptfmt.open(path)
ckptfmt.save(state, path, *, step=None, epoch=None, metrics=None, run_id=None, parent=None, user=None, created=None,
    codec='none')
ckptfmt.torch.Ancestor(identity, name=None, run_id=None, step=None, epoch=None)
ckptfmt.torch.Batches(loader, start, begin)
ckptfmt.torch.Batches.resumed
ckptfmt.torch.Batches.start
ckptfmt.torch.Checkpointer(train_url, components=None, *, save_interval_steps=None, save_interval_minutes=None,
    save_interval_epochs=1, max_overhead=None, signals=..., deadline='slurm', save_on_exception=False,
    background=True, when_busy='wait', on_failed_save='warn', max_failed_saves=None, keep_last=None,
    keep_every_steps=None, keep_best=None, hang_timeout=None, run_id=None, codec='none', store_options=None,
    **unknown)
ckptfmt.torch.Checkpointer.batches(self, loader)
ckptfmt.torch.Checkpointer.best_metric(self)
ckptfmt.torch.Checkpointer.close(self)
ckptfmt.torch.Checkpointer.cycle(self, loader, *, set_epoch=None)
ckptfmt.torch.Checkpointer.end_epoch(self, **metrics)
ckptfmt.torch.Checkpointer.enumerate(self, loader)
ckptfmt.torch.Checkpointer.epoch
ckptfmt.torch.Checkpointer.epochs(self, n)
ckptfmt.torch.Checkpointer.global_step
ckptfmt.torch.Checkpointer.is_resumed_epoch
ckptfmt.torch.Checkpointer.is_started
ckptfmt.torch.Checkpointer.last_error
ckptfmt.torch.Checkpointer.last_saved
ckptfmt.torch.Checkpointer.parent
ckptfmt.torch.Checkpointer.resume(self, resume='auto', *, allow_mismatch=(), takeover=False, inert=(), quiet=False)
ckptfmt.torch.Checkpointer.run_id
ckptfmt.torch.Checkpointer.save(self, **metrics)
ckptfmt.torch.Checkpointer.step(self, *, accumulating=None, **metrics)
ckptfmt.torch.Checkpointer.steps(self, n=None)
ckptfmt.torch.Checkpointer.stop(self)
ckptfmt.torch.Checkpointer.train_url
ckptfmt.torch.Checkpointer.variables(self, **values)
ckptfmt.torch.Checkpointer.wait(self)
ckptfmt.torch.Checkpointer.warm_start(self, path, *, source=None, rename=None, strip_prefix='', partial=False,
    resize=False, also_restore=(), keep_counters=False, inert=(), quiet=False)
ckptfmt.torch.ComponentReport(name, restored, differences=(), notes=(), per_rank=(), empty=False)
ckptfmt.torch.Cycle(rounds)
ckptfmt.torch.Cycle.rounds
ckptfmt.torch.Gradients(module)
ckptfmt.torch.Gradients.load_state_dict(self, state_dict, /)
ckptfmt.torch.Gradients.state_dict(self)
ckptfmt.torch.HeldError
ckptfmt.torch.Peek(directory, path=None, identity=None, run_id=None, step=0, epoch=0)
ckptfmt.torch.RankError
ckptfmt.torch.RestoreError
ckptfmt.torch.RestoreReport(path, identity, step, epoch, components, unexpected)
ckptfmt.torch.ResumeError
ckptfmt.torch.ResumeReport(directory, path, run_id, step=0, epoch=0, batch=0, restored=(), empty=(), missing=(),
    unexpected=(), components=(), mismatched=(), parent=None, skipped=(), other_runs=())
ckptfmt.torch.ResumeReport.resumed
ckptfmt.torch.SaveError
ckptfmt.torch.SkippedFile(path, reason)
ckptfmt.torch.Stateful
ckptfmt.torch.Stateful.load_state_dict(self, state_dict, /)
ckptfmt.torch.Stateful.state_dict(self)
ckptfmt.torch.SupersededError
ckptfmt.torch.UndecidedError
ckptfmt.torch.UsageError
ckptfmt.torch.WarmStartReport(path, lineage, loaded, converted=(), resized=(), kept=(), unused=(), restored=(),
    fresh=(), per_rank=(), step=0, epoch=0)
ckptfmt.torch.load(path, map_location=None, *, weights_only=True, mmap=None, rank=None, inert=())
ckptfmt.torch.open(path)
ckptfmt.torch.peek(train_url, *, run_id=None, inert=())
ckptfmt.torch.restore(path, components=None, *, allow_mismatch=(), verify_first=False, progress=None, **unknown)
ckptfmt.torch.save(obj, path, *, step=None, epoch=None, metrics=None, run_id=None, parent=None, user=None,
    created=None, codec='none')
ckptfmt.torch.tensorboard_options(ckpt, *, first_step=1)
ckptfmt.torch.wandb_options(ckpt)
ckptfmt.torch.warm_start(path, model, *, source=None, rename=None, strip_prefix='', partial=False, resize=False,
    inert=(), quiet=False)
ckptfmt.errors.ChangedError
ckptfmt.errors.CkptfmtError
ckptfmt.errors.ExportError
ckptfmt.errors.ForeignFileError
ckptfmt.errors.FormatError
ckptfmt.errors.HeldError
ckptfmt.errors.IntegrityError
ckptfmt.errors.LeaseError
ckptfmt.errors.LimitError
ckptfmt.errors.LockedError
ckptfmt.errors.MismatchError
ckptfmt.errors.MissingExtraError
ckptfmt.errors.NotFoundError
ckptfmt.errors.PackError
ckptfmt.errors.Problem(code, message, member=None, tensor=None, offset=None)
ckptfmt.errors.ProblemKind
ckptfmt.errors.RankError
ckptfmt.errors.ReadError
ckptfmt.errors.RestoreError
ckptfmt.errors.ResumeError
ckptfmt.errors.SaveError
ckptfmt.errors.SkippedFile(path, reason)
ckptfmt.errors.StateError
ckptfmt.errors.StorageError
ckptfmt.errors.SupersededError
ckptfmt.errors.TruncatedError
ckptfmt.errors.UndecidedError
ckptfmt.errors.UnsafeInputError
ckptfmt.errors.UnsupportedFileError
ckptfmt.errors.UnsupportedVersionError
ckptfmt.errors.UsageError
ckptfmt.errors.error_for(problems, path=None)
"""


def lines_of(module: ModuleType) -> Iterator[str]:
    """Yield a line for each public name of a module with its parameters, and for each member of a public class."""
    for name in sorted(module.__all__):
        value = getattr(module, name)
        public = f"{module.__name__}.{name}"
        if not inspect.isclass(value):
            yield public + (parameters(value) if callable(value) else "")
        elif issubclass(value, Exception | Enum):
            yield public  # `ckptfmt.errors` draws the exceptions
        else:
            yield public + ("" if getattr(value, "_is_protocol", False) else parameters(value))
            yield from (f"{public}.{member}" for member in sorted(set(members(value))))


def members(kind: type) -> Iterator[str]:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    given = {field.name for field in fields if field.init}  # the signature has them
    for base in kind.__mro__:
        for name, value in vars(base).items() if base.__module__.startswith("ckptfmt") else ():
            if name.startswith("_") or name in given:
                continue
            if isinstance(value, property | cached_property):
                yield name
            elif callable(value) or isinstance(value, classmethod | staticmethod):
                yield name + parameters(getattr(kind, name))


def parameters(value: object) -> str:
    assert callable(value)
    shown = [shown_parameter(parameter) for parameter in inspect.signature(value).parameters.values()]
    return str(inspect.Signature(shown))


class Shown:
    """A default that is no plain value."""

    def __repr__(self) -> str:
        return "..."


def shown_parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    default = parameter.default
    if default is not parameter.empty and not isinstance(default, str | int | float | bool | None) and default != ():
        default = Shown()
    return parameter.replace(annotation=parameter.empty, default=default)


def test_the_public_surface_is_what_is_listed_here() -> None:
    assert [line for module in MODULES for line in lines_of(module)] == SURFACE.strip().replace(
        "\n    ", " "
    ).splitlines()


def test_the_conformance_suites_are_what_is_listed_here() -> None:
    # Their tests may become more at any time, so that only what one inherits and calls is listed.
    assert ckptfmt.testing.adapters.__all__ == ["AdapterTests", "filled", "leaf_of"]
    assert ckptfmt.testing.stores.__all__ == ["StoreTests", "content_of", "names_in", "publish"]


def test_every_public_name_is_there_and_no_other_is_shown() -> None:
    for module in MODULES:
        assert set(module.__all__) <= set(dir(module))
        assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError):
        ckptfmt.absent  # type: ignore[attr-defined]  # noqa: B018 - that is what is tested


PUBLIC = [getattr(module, name) for module in MODULES for name in module.__all__]
OBJECTS = [value for value in PUBLIC if isinstance(value, type | FunctionType)]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda it: it.__name__)
def test_what_is_public_can_be_pickled_and_looked_up(value: type | FunctionType) -> None:
    assert pickle.loads(pickle.dumps(value)) is value
    assert value.__name__ in inspect.getsource(value).partition("\n\n")[0]
    assert inspect.getdoc(value)


@pytest.mark.parametrize("module", [ckptfmt, ckptfmt.torch], ids=lambda it: it.__name__)
def test_functions_name_their_public_home(module: ModuleType) -> None:
    functions = [value for name in module.__all__ if isinstance(value := getattr(module, name), FunctionType)]
    assert {value.__module__ for value in functions} == {module.__name__}
    assert all(get_type_hints(value) for value in functions)
