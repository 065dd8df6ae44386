"""`python -m bench.create_profile [TIMES]`: where each millisecond of a create goes, step by step, on either runtime.

From the spans that the server itself sends. One create after the other; the least of each step is what it costs when
nothing else wants the machine.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from e2b import Sandbox

from tests.e2e.local_server import LocalServer
from tests.e2e.trace_receiver import TraceReceiver
from tests.e2e.waiting import until

WHOLE = "POST /v2/sandboxes"
STEPS = ("admit", "slot", "rules", "layer", "mounts", "runtime", "guest", "init", "store")
RUNTIMES = ("crun", "runsc")
TIMES = 40
LATE_S = 60


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    print("| Step | " + " | ".join(f"{runtime}, least | median" for runtime in RUNTIMES) + " |")
    print("|---|" + "---|" * 2 * len(RUNTIMES))
    profiles = [_profile(runtime, times) for runtime in RUNTIMES]
    for step in (*STEPS, "the rest", "whole"):
        cells = (f"{min(found[step]):.1f} | {statistics.median(found[step]):.1f}" for found in profiles)
        print(f"| {step} | " + " | ".join(cells) + " |")


def _profile(runtime: str, times: int) -> dict[str, list[float]]:
    """Milliseconds of each step, of the rest and of the whole, a number for each create."""
    with (
        tempfile.TemporaryDirectory(prefix="warren-profile-") as folder,
        TraceReceiver() as traces,
        LocalServer(Path(folder), runtime=runtime, pool_slots=12, otlp_endpoint=traces.endpoint) as server,
    ):
        for _ in range(times):
            Sandbox.create(timeout=60, **server.options).kill()
        until(lambda: len(traces.named(WHOLE)) == times, LATE_S, "the spans have come")
        took: dict[bytes, dict[str, float]] = {}
        for span in tuple(traces.spans):
            name, parent = (WHOLE, span.span_id) if span.name == WHOLE else (span.name, span.parent_span_id)
            steps = took.setdefault(parent, {})
            steps[name] = steps.get(name, 0.0) + (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    creates = [steps for steps in took.values() if WHOLE in steps]
    found = {step: [steps.get(step, 0.0) for steps in creates] for step in STEPS}
    found["whole"] = [steps[WHOLE] for steps in creates]
    found["the rest"] = [each[WHOLE] - sum(each.get(step, 0.0) for step in STEPS) for each in creates]
    return found


if __name__ == "__main__":
    main()
