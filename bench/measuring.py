"""Takes rows on targets: target after target within a row, so that a slow minute of the machine hits all of them."""

from collections.abc import Sequence

from bench import report
from bench.rows import Row
from bench.samples import Samples
from bench.target import Target


def chosen(rows: Sequence[Row], words: Sequence[str] | None) -> list[Row]:
    """The rows whose name contains one of `words`; all without words."""
    return [row for row in rows if not words or any(word in row.name for word in words)]


def measure(rows: Sequence[Row], targets: Sequence[Target], scale: float) -> dict[tuple[str, str], Samples]:
    """(row's name, target's name) -> samples; each result is printed as soon as it is there."""
    results: dict[tuple[str, str], Samples] = {}
    for row in rows:
        for target in targets:
            if row.only and target.runtime not in row.only:
                continue
            try:
                samples = row.take(target, scale)
            except Exception as error:
                samples = Samples(failures=[f"{type(error).__name__}: {error}".splitlines()[0]])
            results[row.name, target.name] = samples
            print(report.line(row, target.name, samples), flush=True)
    return results
