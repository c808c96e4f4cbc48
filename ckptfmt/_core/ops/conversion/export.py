"""Checkpoints written in other formats: `.pth`, `.safetensors`, `.npz`, and Hugging Face directories."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ckptfmt._core.interop.base import ComponentSource, TensorFile
from ckptfmt._core.interop.dropped import Dropped
from ckptfmt._core.interop.ranked import with_rank_0
from ckptfmt._core.interop.writers.base import Exported, Request
from ckptfmt._core.ops.component_choice import choice_of
from ckptfmt._core.ops.conversion.compare import compare_export
from ckptfmt._core.ops.conversion.convert import open_convertible
from ckptfmt._core.ops.conversion.report import ConvertReport, aliases_of
from ckptfmt._core.ops.inspection.component_roles import Role, role_of
from ckptfmt._core.ops.progress import Meter, Report
from ckptfmt._core.storage.resolve import is_directory, same_object
from ckptfmt.errors import ExportError, NotFoundError, StorageError

__all__ = ["FORMS", "ExportError", "export", "form_of_target"]

FORMS = ("safetensors", "pth", "npz", "hf")
_BY_EXTENSION = {
    ".safetensors": "safetensors",
    ".pth": "pth",
    ".pt": "pth",
    ".bin": "pth",
    ".ckpt": "pth",
    ".npz": "npz",
}
_USUAL = ("net", "model", "state_dict", "model_state_dict")
_SHARD_BYTES = 5_000_000_000
"""Length of a shard as Hugging Face's libraries write it."""


def form_of_target(target: str | os.PathLike[str]) -> str:
    """Return the format that the extension of a target names: one of `FORMS`, or `ckptfmt` for any other."""
    return _BY_EXTENSION.get(Path(target).suffix.lower(), "ckptfmt")


def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    form: str | None = None,
    component: str | None = None,
    shard_bytes: int = _SHARD_BYTES,
    strict: bool = False,
    inert: Collection[str] = (),
    check: bool = False,
    progress: Report | None = None,
) -> ConvertReport:
    """Write a checkpoint in another format, chunk by chunk; the target appears completely or not at all.

    - `.pth`: all components, as a dict that `torch.load(weights_only=True)` takes; written without PyTorch.
    - `.safetensors`, and `hf`: the tensors of one component, under their own names; `hf` is a directory with
      `model.safetensors`, or with shards and their index.
    - `.npz`: the tensors of one component.

    Where values differ between ranks, those of rank 0 are written; the report lists them.

    Args:
        source: A checkpoint in the native format, or in any format that `convert` reads.
        target: The file; for `hf`, the directory, which must be new or empty.
        form: One of `FORMS`. If None, the extension of the target decides; without an extension, `hf`.
        component: The component to write. If None: all components for `.pth`, else the only one with tensors, or the
            only one that holds weights.
        shard_bytes: Maximum length of the tensors in a shard of `hf`.
        strict: See `convert`.
        inert: See `convert`.
        check: Read source and target again and compare every tensor; for `.pth`, also everything else that is
            written unchanged.
        progress: Called after each piece of work.

    Raises:
        ExportError: The format cannot hold the content, or the component is ambiguous.
        NotFoundError: The component does not exist.
        IntegrityError: With `check`: the target differs from the source.
        CkptfmtError: As `convert`.
    """
    source, target = os.fspath(source), os.fspath(target)
    chosen = form or _form(target)
    if chosen not in FORMS:
        raise ExportError(f"{chosen!r} is not an export format; choose from: {', '.join(FORMS)}")
    if same_object(source, target):
        raise StorageError(f"{target}: source and target are the same file; choose another target")
    with open_convertible(source, strict=strict, inert=inert) as file:
        parts = _parts(file, component, whole=chosen == "pth")
        total = sum(tensor.nbytes for part in parts for tensor in part.tensors.values()) * (3 if check else 1)
        meter = Meter(source, total, progress)
        write = _writer(chosen)
        request = Request(file, parts, target, component is not None, shard_bytes, meter.advance)
        written = write(request)
        report = _report(request, written, chosen)
    if not check:
        return report
    with open_convertible(source, inert=inert) as before, open_convertible(target) as after:
        whole = chosen == "pth"
        again = _parts(before, component, whole=whole)
        alone = not whole or component is not None
        compared = compare_export(again, after, alone=alone, exact=not written.notes, meter=meter)
        before.finish()
        after.finish()
    return replace(report, compared=compared)


def _form(target: str) -> str:
    if Path(target).suffix.lower() == ".ckptfmt":
        raise ExportError(f"{target}: export does not write the native format; use convert")
    form = form_of_target(target)
    if form != "ckptfmt":
        return form
    if Path(target).suffix and not is_directory(target):
        known = ", ".join(_BY_EXTENSION)
        raise ExportError(f"{target}: extension {Path(target).suffix} names no export format; use one of {known}")
    return "hf"


def _writer(form: str) -> Callable[[Request], Exported]:
    from ckptfmt._core.interop.writers import npz as export_npz
    from ckptfmt._core.interop.writers import pth as export_pth
    from ckptfmt._core.interop.writers import safetensors as export_safetensors

    writers: Mapping[str, Callable[[Request], Exported]] = {
        "safetensors": export_safetensors.write_file,
        "hf": export_safetensors.write_directory,
        "pth": export_pth.write_file,
        "npz": export_npz.write_file,
    }
    return writers[form]


def _parts(file: TensorFile, component: str | None, *, whole: bool) -> tuple[ComponentSource, ...]:
    """Return the components to write, with the values of rank 0 where they differ between ranks."""
    if component is not None:
        if component not in file.components:
            raise NotFoundError(f"{file.path}: no component {component!r}; {choice_of(file.components)}")
        return (with_rank_0(file.components[component]),)
    parts = tuple(map(with_rank_0, file.components.values()))
    if whole:
        return parts
    candidates = [part for part in parts if part.tensors]
    if len(candidates) > 1:
        candidates = [part for part in candidates if _is_weights(part)]
        usual = [part for part in candidates if part.name in _USUAL]
        candidates = usual[:1] if usual else candidates
    if len(candidates) != 1:
        names = choice_of(part.name for part in candidates or parts)
        raise ExportError(f"{file.path}: cannot tell which component holds the weights; {names}")
    return (candidates[0],)


def _is_weights(part: ComponentSource) -> bool:
    return (part.flat or isinstance(part.tree(), dict)) and role_of(
        part.name, part.tree(), part.tensors
    ) is Role.WEIGHTS


def _report(request: Request, written: Exported, form: str) -> ConvertReport:
    file, parts = request.file, request.components
    findings = file.findings()
    others = [name for name in file.components if name not in {part.name for part in parts}]
    dropped = [Dropped(f"component {name}", "not selected") for name in others]
    return ConvertReport(
        source=file.path,
        target=request.target,
        form=file.form,
        source_bytes=file.file_bytes,
        target_form=form,
        target_bytes=written.nbytes,
        identity=None,
        components=tuple(part.name for part in parts),
        tensors=sum(len(part.tensors) for part in parts),
        tensor_bytes=sum(tensor.nbytes for part in parts for tensor in part.tensors.values()),
        epoch=file.metadata.epoch,
        step=file.metadata.step,
        aliases=aliases_of(file),
        findings=replace(
            findings,
            dropped=(*findings.dropped, *dropped, *written.dropped),
            notes=(*findings.notes, *written.notes, *_notes_of_ranks(parts)),
        ),
    )


def _notes_of_ranks(parts: Iterable[ComponentSource]) -> Iterator[str]:
    for part in parts:
        for value in part.ranked:
            yield f"{value.place} differs between {value.ranks} ranks: the value of rank 0 was written"
