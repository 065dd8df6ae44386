"""The numbers as a table: medians, how often, ratios to docker, and what went wrong."""

from collections.abc import Mapping, Sequence

from bench.gateway_overhead import Overhead
from bench.rows import Row
from bench.samples import Samples

Results = Mapping[tuple[str, str], Samples]
"""(row's name, target's name) -> samples."""

GATEWAY_AIM_MS = 0.6


def line(row: Row, name: str, samples: Samples) -> str:
    """One result, as soon as it is there."""
    if samples.median is None:
        return f"{row.name:34} {name:8} failed: {samples.failures[0] if samples.failures else 'no sample'}"
    low, high = samples.spread or (0.0, 0.0)
    failed = f", {len(samples.failures)} failed" if samples.failures else ""
    detail = f"({low:.1f} to {high:.1f}, n={len(samples.values)}{failed})"
    return f"{row.name:34} {name:8} {samples.median:9.1f} {row.unit:6} {detail}"


def table(rows: Sequence[Row], targets: Sequence[str], results: Results) -> str:
    """Medians side by side; `x` columns say how many times better than docker, `aim` whether the promise is kept."""
    head = f"{'median':34} {'unit':6}" + "".join(f"{name:>10}" for name in targets)
    ratios = [name for name in targets if name != "docker"] if "docker" in targets else []
    head += "".join(f"{name + ' x':>10}" for name in ratios) + f"{'':3}aim"
    lines = [head, "-" * len(head)]
    for row in rows:
        medians = {name: results[row.name, name].median for name in targets if (row.name, name) in results}
        text = f"{row.name:34} {row.unit:6}" + "".join(_cell(medians.get(name)) for name in targets)
        text += "".join(f"{_ratio(row, medians.get(name), medians.get('docker')):>10}" for name in ratios)
        lines.append(text + "   " + _verdicts(row, medians))
    failed = sum(len(samples.failures) for samples in results.values())
    taken = sum(len(samples.values) for samples in results.values())
    lines.append(f"{failed} failures in {taken + failed} measures")
    return "\n".join(lines)


def overhead_line(name: str, overhead: Overhead) -> str:
    verdict = "kept" if overhead.added_ms <= GATEWAY_AIM_MS else "MISSED"
    return (
        f"{'the gateway adds':34} {name:8} {overhead.added_ms:9.2f} ms     "
        f"({overhead.past_ms:.2f} past it, {overhead.through_ms:.2f} through it; aim <= {GATEWAY_AIM_MS}: {verdict})"
    )


def _cell(median: float | None) -> str:
    return f"{'-':>10}" if median is None else f"{median:10.1f}"


def _ratio(row: Row, ours: float | None, dockers: float | None) -> str:
    if ours is None or dockers is None or min(ours, dockers) <= 0:
        return "-"
    return f"{(ours / dockers if row.higher_is_better else dockers / ours):.1f}x"


def _verdicts(row: Row, medians: Mapping[str, float | None]) -> str:
    said = []
    for name, aim in row.aim.items():
        median = medians.get(name)
        if median is not None:
            kept = median >= aim if row.higher_is_better else median <= aim
            said.append(f"{name} {'>=' if row.higher_is_better else '<='} {aim:g}: {'kept' if kept else 'MISSED'}")
    return ", ".join(said)
