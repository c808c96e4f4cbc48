"""Begin to publish a file, write `begun` and a line end, wait for a line on standard input, then publish it.

Usage: paused_writer.py PATH CONTENT
"""

import sys

from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile

with AtomicFile(sys.argv[1]) as file:
    file.write(sys.argv[2].encode())
    print("begun", flush=True)
    sys.stdin.readline()
    file.commit()
