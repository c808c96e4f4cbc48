"""How much of a file from a stranger is taken in: every limit of this package.

Real checkpoints stay far below them; what goes beyond is refused with an error that names the limit. Together they
bound memory (about 2 GiB at the worst, a few MiB usually) and time (seconds).
"""

from __future__ import annotations

MAX_PICKLE_BYTES = 256 << 20
"""Length of one pickle. The tensors' data are not in it."""

MAX_OPERATIONS = 3 << 22
"""Opcodes that are carried out of all pickles of a file together."""

MAX_CONTAINERS = 1 << 21
"""Lists, dicts, sets, tuples and records that one pickle makes."""

MAX_MARKS = 1 << 16
"""Containers of one pickle that are begun and not ended at the same time."""

MAX_INTEGER_BYTES = 1024
"""Length of one integer. Python refuses to write one of some more as text."""

MAX_LINE_BYTES = 4096
"""Length of a line in the text opcodes of protocol 0, strings apart."""

MAX_NAME_CHARS = 1024
"""Length of the name of a module or class."""

MAX_DEPTH = 62
"""Nesting of the values that are taken over; a checkpoint of ours has 64 levels at most (spec 13.1)."""

MAX_VALUES = 1 << 22
"""Values of the whole state, each counted as often as it is referred to."""

MAX_KEY_VALUES = 64
"""Values inside one key of a mapping, if it is a tuple."""

MAX_TUPLE_KEYS = 1 << 14
"""Keys and set elements that are tuples."""

MAX_COPIED_BYTES = 256 << 20
"""Bytes of text that are turned into bytes (`_codecs.encode`), all together."""

MAX_MEMBERS = 1 << 18
"""Members of a zip archive."""

MAX_DIRECTORY_BYTES = 128 << 20
"""Length of the central directory of a zip archive."""

MAX_MEMBER_NAME_BYTES = 1024
"""Length of a member's name."""

MAX_EXPANSION = 100
"""How many times as long as the file what it expands to may be, beyond `FREE_EXPANSION_BYTES`."""

FREE_EXPANSION_BYTES = 1 << 30
"""What a file may expand to, however short it is."""

REWORK = 64
"""How many times the length of the file may be decompressed again for tensors that lie in another order than they are
read, beyond `FREE_REWORK_BYTES`."""

FREE_REWORK_BYTES = 4 << 30
"""What may be decompressed again, however short the file is."""

MAX_DIMENSIONS = 64
"""Dimensions of a tensor (spec 9.2)."""

MAX_UNPACKED_BYTES = 256 << 20
"""Bytes that are unpacked to look into an archive that is refused."""

MAX_SCAN_BYTES = 64 << 20
"""How far a part of a file that is not known to be a pickle is looked at as if it were one."""
