"""Building templates: the seams between what is asked for, what runs the steps, and where images come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from warren.model.build import AwsKeys, Built, LogLevel, Recipe, RegistryLogin
from warren.model.project import Project
from warren.model.sandbox import Resources

Say = Callable[[LogLevel, str, str | None], None]
"""Level, message, step: one line for the log of a build. Never blocks and never raises."""


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """One build to run. `id` is a UUID in text form; uploaded archives are looked up below `template_id`."""

    id: str
    template_id: str
    project: Project
    resources: Resources
    recipe: Recipe


class Builder(Protocol):
    """Runs builds. Whoever calls limits how many run at once."""

    async def build(self, order: BuildOrder, say: Say) -> Built:
        """Run every step that no cached layer covers, in a sandbox of its own.

        Raises BuildFailed, with the step; TemplateNotFound, NoCapacity, NoSpace. After an error or a cancellation no
        sandbox, mount or partial image is left; layers of finished steps stay, so a retry begins where this ended.
        """
        ...


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An OCI image as one EROFS file in the template folder, with what its configuration says.

    `user` is "" for root, else a name or a number that the image knows; `workdir` is "" for /.
    """

    digest: str
    user: str = ""
    workdir: str = ""
    envs: Mapping[str, str] = field(default_factory=dict[str, str])


class ImageSource(Protocol):
    async def fetch(self, reference: str, login: RegistryLogin | AwsKeys | None, say: Say) -> FetchedImage:
        """Bring an image here, unpacked as hostile data, made fit for sandboxes, packed as EROFS under its digest.

        What is here already, by the manifest's digest, is not fetched again. Raises BuildFailed with BASE_STEP for
        what the registry refuses and for images that break a limit; NoSpace. After an error nothing partial is left.
        """
        ...

    def forget(self, digests: frozenset[str]) -> None:
        """Images with these digests are here no more. Blocks."""
        ...
