"""The routes of port 49999 (wire contract 4.2). Errors are plain text, as the clients expect."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, cast

from aiohttp import web

from code_interpreter import limits, lines
from code_interpreter.contexts import ContextMissing, Contexts, TooMany
from code_interpreter.kernel import KernelFailed
from code_interpreter.languages import named
from code_interpreter.sandbox import AccessDenied, Sandbox

log = logging.getLogger(__name__)

TOKEN = "X-Access-Token"  # noqa: S105 - the name of a header
STATUSES = {ContextMissing: 404, KernelFailed: 500, TooMany: 429, AccessDenied: 401, ValueError: 400}


class Service:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._tasks: asyncio.TaskGroup | None = None
        self.contexts = Contexts(self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> object:
        if self._tasks is None:
            raise RuntimeError("cannot start work: the service does not run")
        return self._tasks.create_task(work)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the kernels well until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self.contexts.prepare()
            watch = tasks.create_task(self.contexts.supervise())
            await stop.wait()
            watch.cancel()
        await self.contexts.close()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.post("/execute", self.execute),
            web.get("/contexts", self.listing),
            web.post("/contexts", self.create),
            web.delete("/contexts/{id}", self.remove),
            web.post("/contexts/{id}/restart", self.restart),
        ]

    async def health(self, _: web.Request) -> web.Response:
        if not self.contexts.is_ready:
            return web.Response(status=503, text="starting")
        return web.json_response("OK")

    async def listing(self, _: web.Request) -> web.Response:
        return web.json_response(self.contexts.documents())

    async def create(self, request: web.Request) -> web.Response:
        body = await document(request)
        context = await self.contexts.create(text(body, "language"), text(body, "cwd"))
        return web.json_response(context.document())

    async def remove(self, request: web.Request) -> web.Response:
        await self.contexts.remove(request.match_info["id"])
        return web.Response(status=204)

    async def restart(self, request: web.Request) -> web.Response:
        await self.contexts.restart(request.match_info["id"])
        return web.Response(status=204)

    async def execute(self, request: web.Request) -> web.StreamResponse:
        body = await document(request)
        code, context_id, language = text(body, "code"), text(body, "context_id"), text(body, "language")
        if code is None:
            raise ValueError("cannot execute: the body has no code")
        if context_id is not None and language is not None:
            raise ValueError("cannot use both context_id and language: give one of them")
        lent = environment(body.get("env_vars"))
        envs = await self._sandbox.envs(request.headers.get(TOKEN))
        context = await self.contexts.default(language) if context_id is None else self.contexts.find(context_id)
        label = context.label if language is None else named(language)[0]
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        async with aclosing(self.contexts.run(context, code, label, envs, lent)) as said:
            await relay(said, answer)
        await answer.write_eof()
        return answer


async def relay(said: AsyncGenerator[lines.Line], answer: web.StreamResponse) -> None:
    """Lines as they come; of silence, one word every few seconds, which also finds out whether the client is there."""
    loop = asyncio.get_running_loop()
    last = loop.time()
    async for line in said:
        if line is lines.KEEPALIVE and loop.time() - last < limits.KEEPALIVE_S:
            continue
        await answer.write(lines.encoded(line))
        last = loop.time()


@web.middleware
async def spoken_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), None)
        if status is None:
            raise
        return web.Response(status=status, text=str(error))


async def document(request: web.Request) -> Mapping[str, Any]:
    """The body, a JSON object; none is an empty one. Raises ValueError."""
    content = await request.read()
    try:
        body: Any = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError("cannot read the body: it is not JSON") from None
    if not isinstance(body, dict):
        raise ValueError("cannot read the body: it is not a JSON object")
    return cast("dict[str, Any]", body)


def text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"cannot use {name}: it is not a string")
    return value


def environment(value: Any) -> dict[str, str]:
    """Raises ValueError for what no environment can hold."""
    if value is None:
        return {}
    pairs = cast("dict[str, Any]", value) if isinstance(value, dict) else None
    if pairs is None or not all(isinstance(each, str) for each in pairs.values()):
        raise ValueError("cannot use env_vars: it is not an object of strings")
    for name, each in pairs.items():
        if not name or "=" in name or "\0" in name or "\0" in each:
            raise ValueError(f"cannot use the environment variable {name!r}")
    return pairs


def application(service: Service) -> web.Application:
    app = web.Application(middlewares=[spoken_errors], client_max_size=limits.BODY_MAX)
    app.add_routes(service.routes())
    return app
