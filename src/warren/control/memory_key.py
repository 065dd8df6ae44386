"""What two templates must have in common for one memory, with their services up, to be right for both."""

from dataclasses import asdict

from warren.control.build_steps import chain
from warren.model.build import Built
from warren.model.sandbox import Resources
from warren.model.template import Template

OWNER = "built-in"
"""In the place of a project's id in keys of the build cache."""


def memory_key(owner: str, runtime: str, of: Built | Template, resources: Resources) -> str:
    """In the build cache: of all that decides what is in the memory. `owner` is a project's id, or OWNER."""
    return chain(
        owner, runtime, of.digest, of.start_command, of.ready_command,
        of.default_user, of.default_workdir, dict(of.envs), asdict(resources),
    )  # fmt: skip
