"""The numbers as a table: medians, how often, ratios to docker, and what went wrong."""

from collections.abc import Mapping, Sequence

from bench.gateway_overhead import Overhead
from bench.image_unpack import Unpacked
from bench.rows import ALIVE, Row, among
from bench.samples import Samples

Results = Mapping[tuple[str, str], Samples]
"""(row's name, target's name) -> samples."""

GATEWAY_AIM_MS = 0.6
IMAGE_AIM = 1.5
GUEST_AIM_MS = 10.0
GROWTH_AIM = 1.5
"""A create among many takes at most this many times what it takes alone."""


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
    verdict = _verdict(overhead.added_ms <= GATEWAY_AIM_MS)
    return (
        f"{'the gateway adds':34} {name:8} {overhead.added_ms:9.2f} ms     "
        f"({overhead.past_ms:.2f} past it, {overhead.through_ms:.2f} through it; aim <= {GATEWAY_AIM_MS}: {verdict})"
    )


def guest_line(milliseconds: float) -> str:
    return (
        f"{'guestd alone, exec to first answer':34} {'':8} {milliseconds:9.2f} ms     "
        f"(best of several; aim <= {GUEST_AIM_MS:g}: {_verdict(milliseconds <= GUEST_AIM_MS)})"
    )


def image_line(found: Unpacked) -> str:
    """An image of ours against `umoci unpack` alone."""
    verdict = _verdict(found.ratio <= IMAGE_AIM)
    return (
        f"{'image: check, unpack, fit, EROFS':34} {'':8} {found.ratio:9.2f} x      "
        f"({found.ours_s:.1f} s, umoci alone {found.umoci_s:.1f} s, layers of {found.mb:.0f} MB; "
        f"aim <= {IMAGE_AIM:g}: {verdict})"
    )


def floor_line(what: str, samples: Samples) -> str:
    """A runtime's own command without anything of ours, beside which pause and resume are to be read."""
    if samples.median is None:
        return f"{f'runsc {what} by hand':34} failed: {samples.failures[0] if samples.failures else 'no sample'}"
    low, high = samples.spread or (0.0, 0.0)
    return f"{f'runsc {what} by hand':34} {'':8} {samples.median:9.1f} ms     ({low:.1f} to {high:.1f})"


def growth_lines(names: Sequence[str], results: Results) -> list[str]:
    """How a create among many compares with one alone."""
    lines: list[str] = []
    for name in names:
        medians = {alive: results[among(alive), name].median for alive in ALIVE if (among(alive), name) in results}
        alone = medians.get(1)
        for alive, median in medians.items():
            if alive > 1 and alone and median:
                said = f"(aim <= {GROWTH_AIM:g}: {_verdict(median / alone <= GROWTH_AIM)})"
                lines.append(f"{f'create among {alive} / alone':34} {name:8} {median / alone:9.2f} x      {said}")
    return lines


def comparison(rows: Sequence[Row], pairs: Mapping[str, tuple[str, str]], results: Results) -> str:
    """`pairs`: runtime -> names of the target before and of the one now. Ratios above 1 are better now."""
    lines = [f"{'median':34} {'unit':6} {'':8}{'before':>10}{'now':>10}{'better':>10}"]
    for row in rows:
        for runtime, (before, now) in pairs.items():
            if (row.name, now) in results:
                old, new = results[row.name, before].median, results[row.name, now].median
                lines.append(
                    f"{row.name:34} {row.unit:6} {runtime:8}{_cell(old)}{_cell(new)}{_ratio(row, new, old):>10}"
                )
    failed = {name: sum(len(results[key].failures) for key in results if key[1] == name) for _, name in results}
    return "\n".join([*lines, *(f"{count} failures: {name}" for name, count in failed.items() if count)])


def _verdict(is_kept: bool) -> str:
    return "kept" if is_kept else "MISSED"


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
            said.append(f"{name} {'>=' if row.higher_is_better else '<='} {aim:g}: {_verdict(kept)}")
    return ", ".join(said)
