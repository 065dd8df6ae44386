"""What is measured, whatever it is measured on."""

from typing import Protocol


class Box(Protocol):
    """One running sandbox or container."""

    def true(self) -> None:
        """Run `true` directly, without a shell."""
        ...

    def login_true(self) -> None:
        """Run `bash -l -c true`, as the SDK runs every command."""
        ...

    def echo(self) -> None:
        """Run `echo` the way a first program does, and check the answer."""
        ...

    def write(self, data: bytes) -> None: ...

    def read(self, size: int) -> None:
        """Fetch what `write` left; raises when it is not `size` bytes."""
        ...

    def delete(self) -> None: ...


class Target(Protocol):
    name: str
    runtime: str

    def settle(self) -> None:
        """Be ready for a measure of creating; takes as long as it takes."""
        ...

    def create(self) -> Box: ...
