"""The table of errors is total, and every error body has the one form."""

from collections.abc import Iterator

import pytest

from warren.api.error_mapping import STATUS, status_of
from warren.model import errors


def every_error(base: type[errors.WarrenError] = errors.WarrenError) -> Iterator[type[errors.WarrenError]]:
    for child in base.__subclasses__():
        yield child
        yield from every_error(child)


def test_every_error_has_a_status_of_its_own_choice() -> None:
    for error in every_error():
        assert any(base in STATUS for base in error.__mro__), f"{error.__name__} has no status"


def test_codes_are_unique_and_machine_readable() -> None:
    codes = [error.code for error in every_error()]
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


def test_the_tree_on_top_of_the_module_names_every_error_and_code() -> None:
    drawn = errors.__doc__ or ""
    for error in every_error():
        line = next((line for line in drawn.splitlines() if error.__name__ in line.split()), None)
        assert line is not None, f"{error.__name__} is not drawn"
        assert error.code in line


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SandboxNotFound, 404),
        (errors.InvalidTimeout, 400),
        (errors.LimitReached, 429),
        (errors.NoCapacity, 503),
        (errors.PlacementTimeout, 504),
        (errors.NotSupported, 501),
        (errors.IdempotencyMismatch, 422),
    ],
)
def test_a_subclass_takes_the_status_of_its_family(error: type[errors.WarrenError], status: int) -> None:
    assert status_of(error) == status
