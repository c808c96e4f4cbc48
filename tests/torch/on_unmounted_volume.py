"""Save a run on a volume that is then unmounted, and save again; tell what went wrong, and what is beneath it.

Usage: on_unmounted_volume.py DIRECTORY NAME

It must be allowed to mount. The run is saved in DIRECTORY/NAME, where DIRECTORY is the volume. Writes a JSON object:

    saved    whether the first save was good
    error    what went wrong with the second one
    beneath  what is then in DIRECTORY, which is none of the volume's any more
"""

import json
import subprocess
import sys
from pathlib import Path

from ckptfmt.torch import Checkpointer

volume, name = Path(sys.argv[1]), sys.argv[2]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", volume], check=True)
ckpt = Checkpointer(volume / name, {})
ckpt.resume(quiet=True)
ckpt.save()
saved = ckpt.wait() is not None
subprocess.run(["umount", "--lazy", volume], check=True)
ckpt.save(loss=1)
ckpt.wait()
beneath = sorted(str(path.relative_to(volume)) for path in volume.rglob("*"))
print(json.dumps({"saved": saved, "error": str(ckpt.last_error), "beneath": beneath}))
