"""How the property tests run: the same examples each time as long as the code is the same, so
nothing fails by chance.

FUZZ_EXAMPLES=5000 looks for new ones, so many for each property; FUZZ_PROFILE=raw shows a failure
as it was found, where making it small takes too long.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.configuration import set_hypothesis_home_dir

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES") or 0)

# What is kept between runs would go into the working directory.
HOME = Path(tempfile.mkdtemp(prefix="fuzz-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
set_hypothesis_home_dir(HOME)

settings.register_profile(
    "fuzz",
    derandomize=not EXAMPLES,
    max_examples=EXAMPLES or 15,
    database=None,
    deadline=None,
    print_blob=bool(EXAMPLES),
    # What is slow is the machine.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "raw", settings.get_profile("fuzz"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("FUZZ_PROFILE") or "fuzz")
