"""One step of a build, carried out in its sandbox."""

from collections.abc import Callable
from pathlib import Path

from warren.contracts.building import Say
from warren.contracts.guest import CopyOrder, Door, Exit, GuestCommand, Workshop
from warren.control.build_steps import Copy, MakeFolder, Planned, Run
from warren.model import limits
from warren.model.build import LogLevel
from warren.model.errors import BuildFailed

SHELL = "/bin/bash"
NOT_FOUND = 127


class Worker:
    def __init__(self, workshop: Workshop, archives: Callable[[str, str], Path]) -> None:
        self._workshop, self._archives = workshop, archives

    async def do(self, template_id: str, step: Planned, door: Door, epoch: int, say: Say) -> None:
        """Raises BuildFailed when the step fails; Timeout, Unavailable."""
        match step.action:
            case None:
                pass
            case Run():
                await self._run(step.action, step, door, epoch, say)
            case Copy():
                await self._copy(template_id, step.action, door)
            case MakeFolder(path, user):
                made = await self._workshop.make_folder(door, path, user)
                _check(made, f"failed to make the working directory '{path}'")

    async def _run(self, action: Run, step: Planned, door: Door, epoch: int, say: Say) -> None:
        # Python then ties byte code to the source's content: its time will not be the one that it has now.
        envs = {"SOURCE_DATE_EPOCH": str(epoch), **step.stage.envs}
        command = GuestCommand((SHELL, "-l", "-c", action.command), action.user, step.stage.workdir, envs)

        def on_line(line: str) -> None:
            say(LogLevel.INFO, line, step.number)

        ended = await self._workshop.run(door, command, on_line, limits.BUILD_STEP_DEADLINE_S)
        if ended.code == NOT_FOUND and not await self._has_shell(door, action, step):
            raise BuildFailed(
                f"failed to run command '{action.command}': the image has no {SHELL}, which RUN needs; "
                "begin with an image that has it, or COPY what the command would make"
            )
        _check(ended, f"failed to run command '{action.command}'")
        await self._workshop.settle(door)

    async def _has_shell(self, door: Door, action: Run, step: Planned) -> bool:
        probe = GuestCommand((SHELL, "-c", "exit 0"), action.user, step.stage.workdir)
        return (await self._workshop.run(door, probe, _ignore, limits.BUILD_STEP_DEADLINE_S)).code != NOT_FOUND

    async def _copy(self, template_id: str, action: Copy, door: Door) -> None:
        archive = self._archives(template_id, action.files_hash)
        if not archive.is_file():
            raise BuildFailed(f"failed to copy '{action.source}': its files were not uploaded; upload and build again")
        order = CopyOrder(archive, action.source, action.target, action.owner, action.mode)
        _check(await self._workshop.copy_in(door, order), f"failed to copy '{action.source}'")


def _check(ended: Exit, failure: str) -> None:
    if ended.refusal:
        raise BuildFailed(f"{failure}: command failed: {ended.refusal}")
    if ended.code:
        raise BuildFailed(f"{failure}: exit status {ended.code}")


def _ignore(line: str) -> None:
    del line
