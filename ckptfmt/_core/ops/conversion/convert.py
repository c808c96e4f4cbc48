"""Conversion of other formats to the native format: safely, chunk by chunk, and completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ckptfmt._core.container.writer import write_file
from ckptfmt._core.format.index import Metadata
from ckptfmt._core.format.layout import require_known_version
from ckptfmt._core.interop.base import TensorFile
from ckptfmt._core.interop.opening import open_tensors
from ckptfmt._core.ops.conversion.compare import compare_conversion
from ckptfmt._core.ops.conversion.report import ConvertReport, aliases_of
from ckptfmt._core.ops.conversion.transcode import plan_rewrite
from ckptfmt._core.ops.progress import Meter, Report
from ckptfmt._core.pth.reading import refuse_code
from ckptfmt._core.storage import create, open_source
from ckptfmt._core.storage.local.paths import name_as_text, real_path
from ckptfmt._core.storage.resolve import is_directory, same_object
from ckptfmt._version import __version__
from ckptfmt.errors import ForeignFileError, FormatError, StorageError

__all__ = ["convert", "open_convertible"]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    strict: bool = False,
    inert: Collection[str] = (),
    check: bool = False,
    codec: str = "none",
    run_id: str | None = None,
    progress: Report | None = None,
) -> ConvertReport:
    """Convert a checkpoint from another format to the native format, without running any code in it.

    Sources are files written by `torch.save` in any of its forms, TorchScript archives, plain pickles, `.safetensors`
    and `.npz` files, and directories: Hugging Face models and Trainer checkpoints, and what Accelerate's `save_state`
    writes. A pickle is read as data: its names are compared with a list of what checkpoints contain, and nothing is
    imported or called. Objects of other packages become inert data, which the report lists.

    Tensors are read and written chunk by chunk, so memory use does not grow with their size.

    Args:
        source: The file or directory.
        target: The file to write. An existing file is replaced once the new one is durable.
        strict: Refuse objects of other packages instead of keeping them as inert data.
        inert: Names, dotted as the error shows them, for which a PyTorch file is not refused: objects made of them are
            kept as inert data and listed. No code is run for them either.
        check: Read source and target again and compare every value.
        codec: `none` or `zstd`, for all components.
        run_id: The run that the checkpoint will belong to, so that `Checkpointer.resume` finds it in its directory.
        progress: Called after each piece of work.

    Returns:
        A report of what was found and written.

    Raises:
        UnsafeInputError: Loading the source would run code. No code was run and nothing was written.
        ForeignFileError: The source is not a valid file of its format.
        StateError: The source contains something that cannot be expressed.
        UnsupportedVersionError: The source is a native file of a newer version, and may hold what a copy would lose.
        StorageError: The source cannot be read or the target cannot be written; an existing target is unchanged.
        IntegrityError: With `check`: a value in the target differs from the source.
    """
    source, target = os.fspath(source), os.fspath(target)
    if same_object(source, target):
        raise StorageError(f"{target}: source and target are the same file; choose another target")
    with open_convertible(source, strict=strict, inert=inert) as file:
        total = sum(tensor.nbytes for tensor in file.tensors) * (3 if check else 1)
        meter = Meter(source, total, progress)
        if file.version is not None:
            require_known_version(file.version, source)
        plan = plan_rewrite(file, _metadata(file, run_id), codec=codec, advance=meter.advance)
        with create(target, expected_bytes=plan.file_bytes) as output:
            written = write_file(output, plan.members, plan.metadata)
            file.finish()
            output.commit(written_bytes=written.file_bytes)
        report = ConvertReport(
            source=source,
            target=target,
            form=file.form,
            source_bytes=file.file_bytes,
            target_form="ckptfmt",
            target_bytes=written.file_bytes,
            identity=written.identity,
            components=plan.components,
            tensors=sum(1 for _ in file.tensors),
            tensor_bytes=sum(tensor.nbytes for tensor in file.tensors),
            epoch=file.metadata.epoch,
            step=file.metadata.step,
            aliases=aliases_of(file),
            findings=file.findings(),
        )
    if not check:
        return report
    with open_convertible(source, inert=inert) as before, open_convertible(target) as after:
        return replace(report, compared=compare_conversion(before, after, meter))


def open_convertible(path: str, *, strict: bool = False, inert: Collection[str] = ()) -> TensorFile:
    """Open a file or directory that can be converted.

    Args:
        path: The file or directory.
        strict: See `convert`.
        inert: See `convert`.

    Raises:
        UnsafeInputError: It asks for code to be run; with `strict`, also if it has objects of other packages.
        CkptfmtError: As `open_tensors`.
    """
    try:
        file = open_tensors(path, inert=inert)
    except FormatError as error:
        if is_directory(path) or error.code not in ("magic", "too-short"):
            raise
        # The first bytes show none of the known formats, but it may still be a pickle.
        with open_source(path) as source:
            known = refuse_code(source, inert=inert)
        raise ForeignFileError(known or "unknown format", path, "checkpoint") from error
    try:
        if strict:
            file.refuse_unknown()
    except BaseException:
        file.close()
        raise
    return file


def _metadata(file: TensorFile, run_id: str | None) -> Metadata:
    """Return the facts for the new index: those that the source has, and where it comes from."""
    if file.form == "ckptfmt":
        if run_id in (None, file.metadata.run_id):
            return file.metadata
        return replace(file.metadata, run_id=run_id, generation=None)  # another run counts its own
    origin: Mapping[str, str | None] = {
        "converted_from": name_as_text(real_path(file.path)),
        "form": file.form,
        "written_by": file.metadata.producer,
    }
    return replace(
        file.metadata,
        run_id=file.metadata.run_id if run_id is None else run_id,
        created=datetime.now(UTC),
        producer=f"ckptfmt {__version__}",
        user={**(file.metadata.user or {}), **{key: value for key, value in origin.items() if value is not None}},
    )
