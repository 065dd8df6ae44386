"""How hard to try: `make test` a little and always the same, `make fuzz` (FUZZ_EXAMPLES) more and always other."""

import os

from hypothesis import HealthCheck, settings

FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def budget(usual: int) -> settings:
    """`usual`: examples of one test in `make test`, where all of them together have a few seconds."""
    return settings(
        max_examples=FUZZ_EXAMPLES or usual,
        derandomize=not FUZZ_EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
