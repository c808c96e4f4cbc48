"""How hypothesis looks for examples: the same ones in every default run, new and many more in `make fuzz`.

No deadlines: how long an example takes says more of the machine than of the code.
"""

import os

from hypothesis import settings

settings.register_profile("default", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
