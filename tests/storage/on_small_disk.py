"""Publish files on a file system of 1 MiB until it is full, without inodes, and read-only, and tell what happened.

Usage: on_small_disk.py DIRECTORY

The process must be allowed to mount. Writes a JSON array with one object for each publication:

    case     which one
    error    the message, or null if it succeeded
    begun    whether the file could be begun
    content  whether the file at the path is the one published before
    others   names of other files in the directory
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ckptfmt._core.storage.local.publication.atomic_file import AtomicFile
from ckptfmt.errors import StorageError

OLD = os.urandom(300_000)


def publish(case: str, path: Path, nbytes: int, expected_bytes: int | None = None) -> dict[str, object]:
    begun, message, code = False, None, None
    try:
        with AtomicFile(path, expected_bytes=expected_bytes) as file:
            begun = True
            for _ in range(0, nbytes, 100_000):
                file.write(bytes(100_000))
            file.commit()
    except StorageError as error:
        message, code = str(error), error.errno
    others = sorted(entry.name for entry in path.parent.iterdir() if entry != path)
    content = path.exists() and path.read_bytes() == OLD
    return {"case": case, "error": message, "errno": code, "begun": begun, "content": content, "others": others}


def mount(directory: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", directory], check=True)


def main(directory: Path) -> None:
    mount(directory, "-o", "size=1m")
    path = directory / "a.ckptfmt"
    path.write_bytes(OLD)
    outcomes = [
        publish("fills up", path, 2_000_000),
        publish("reserves too much", path, 2_000_000, expected_bytes=2_000_000),
        publish("reserves what it does not use", directory / "b.ckptfmt", 100_000, expected_bytes=500_000),
    ]
    (directory / "b.ckptfmt").unlink()
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", directory], check=True)  # the root of it, and a.ckptfmt
    outcomes.append(publish("has no inodes", path, 100_000))
    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
    outcomes.append(publish("is read-only", path, 100_000))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
