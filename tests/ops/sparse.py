"""Checkpoints that are large and take almost no room on the disk."""

from pathlib import Path

from ckptfmt._core.format.chunks import CHUNK_BYTES
from ckptfmt._core.format.digest import digest
from ckptfmt._core.format.index import Index, Member, Metadata, encode_index
from ckptfmt._core.format.layout import INDEX_ALIGNMENT, MEMBER_ALIGNMENT, align, encode_preamble, encode_trailer
from ckptfmt._core.format.tensors import plan_header


def sparse_checkpoint(path: Path, elements: int) -> None:
    """Write a valid checkpoint with one tensor of that many zeros (F32), most of it a hole in the file."""
    header = plan_header([("wte.weight", "F32", (elements,))])
    block = header.block()
    zeros = bytes(CHUNK_BYTES)
    zeros_digest = digest(zeros)
    digests = [digest(block)]
    for segment in header.segments[1:]:
        for chunk in segment.chunks():
            digests.append(zeros_digest if chunk.nbytes == CHUNK_BYTES else digest(zeros[: chunk.nbytes]))
    nbytes = len(block) + header.data_bytes
    member = Member("net.safetensors", "none", MEMBER_ALIGNMENT, nbytes, nbytes, b"".join(digests), header.text)
    index = encode_index(Index(Metadata(step=1), (member,)))
    index_offset = align(member.offset + nbytes, INDEX_ALIGNMENT)
    preamble = encode_preamble()
    with path.open("wb") as file:
        file.write(preamble)
        file.seek(member.offset)
        file.write(block)
        file.seek(index_offset)
        file.write(index)
        file.seek(align(index_offset + len(index), INDEX_ALIGNMENT))
        file.write(encode_trailer(preamble, index_offset, index))
