"""The async client: other transport, other streams, the same facts."""

import asyncio
from collections.abc import Callable

import pytest
from e2b import AsyncSandbox, CommandExitException, NotFoundException, Sandbox, SandboxException, TimeoutException

pytestmark = pytest.mark.anyio


@pytest.mark.covers("P01", "P03", "P08")
async def test_output_exit_codes_users_and_callbacks(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    heard: list[str] = []

    async def listen(text: str) -> None:
        heard.append(text)

    result = await sandbox.commands.run(
        "id -un; pwd; echo $WORD", user="root", cwd="/usr", envs={"WORD": "hi"}, on_stdout=listen
    )
    assert result.stdout == "".join(heard) == "root\n/usr\nhi\n"
    assert (await sandbox.commands.run("echo quiet", retain_output=False)).stdout is None
    with pytest.raises(CommandExitException) as failure:
        await sandbox.commands.run("exit 9")
    assert failure.value.exit_code == 9


@pytest.mark.covers("P02", "P05", "P07")
async def test_background_commands_are_fed_listed_left_and_found_again(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    handle = await sandbox.commands.run("read a; read b; echo $a-$b", background=True, stdin=True)
    await handle.send_stdin("one\n")
    await handle.disconnect()
    assert handle.pid in {process.pid for process in await sandbox.commands.list()}
    again = await sandbox.commands.connect(handle.pid)
    await sandbox.commands.send_stdin(handle.pid, "two\n")
    assert (await again.wait()).stdout == "one-two\n"
    sleeper = await sandbox.commands.run("sleep 60", background=True)
    assert await sandbox.commands.kill(sleeper.pid) is True
    with pytest.raises(CommandExitException):
        await sleeper.wait()


@pytest.mark.covers("P05")
async def test_stdin_can_be_closed(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    handle = await sandbox.commands.run("cat", background=True, stdin=True)
    await handle.send_stdin("all of it")
    await handle.close_stdin()
    assert (await handle.wait()).stdout == "all of it"


@pytest.mark.covers("P06")
async def test_input_frames_are_applied_as_they_arrive(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    arrived: asyncio.Queue[str] = asyncio.Queue()
    handle = await sandbox.commands.run("cat", background=True, stdin=True, on_stdout=arrived.put_nowait)
    async with sandbox.commands.stream_input(handle.pid) as stream:
        for word in ("first", "second", "third"):
            await stream.send(word)
            assert await asyncio.wait_for(arrived.get(), 20) == word
    await handle.close_stdin()
    assert (await handle.wait()).stdout == "firstsecondthird"


@pytest.mark.covers("P06", "C07")
async def test_an_input_stream_for_nobody_fails(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    stream = sandbox.commands.stream_input(999_999)
    await stream.send("x")
    with pytest.raises(NotFoundException):
        await stream.close()


@pytest.mark.covers("P04")
async def test_a_timeout_ends_the_command(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    with pytest.raises(TimeoutException):
        await sandbox.commands.run("sleep 30", timeout=1)
    assert (await sandbox.commands.run("echo unlimited", timeout=0)).stdout == "unlimited\n"


@pytest.mark.covers("P09")
async def test_many_commands_at_once_do_not_mix(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    results = await asyncio.gather(
        *(sandbox.commands.run(f"echo {number}; echo e{number} >&2") for number in range(20))
    )
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(20)]
    assert [result.stderr for result in results] == [f"e{number}\n" for number in range(20)]


@pytest.mark.covers("P09")
async def test_large_output_arrives_whole(box: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(box.sandbox_id)
    result = await sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert result.stdout == "x" * 3_000_000


@pytest.mark.covers("P10")
async def test_killing_the_sandbox_cuts_the_stream(create: Callable[..., Sandbox]) -> None:
    sandbox = await AsyncSandbox.connect(create().sandbox_id)
    handle = await sandbox.commands.run("sleep 600", background=True, timeout=0)
    await sandbox.kill()
    with pytest.raises(TimeoutException, match="was killed or reached its end of life"):
        await asyncio.wait_for(handle.wait(), 30)
    with pytest.raises(SandboxException):
        await sandbox.commands.run("true")
