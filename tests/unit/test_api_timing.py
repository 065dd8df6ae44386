"""The time of a 404 does not tell whether there is something that is another's; `make attack` asks every route."""

import itertools
import os
import statistics
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

import pytest

from tests.unit.api_lines import LINES, Names, line_of, naming, path_of, title
from tests.unit.api_server import BASE, ApiServer, api_server
from warren.api.routes import ROUTES, Route

pytestmark = [pytest.mark.threat("D1"), pytest.mark.anyio, pytest.mark.timeout(300)]

SAMPLES = 40
FACTOR = 1.3
"""Between medians of interleaved samples: one more query would make it 1.5 and more, on any machine."""
ATTEMPTS = 6
"""What is slower by chance is not so every time; what is slower because it exists is."""
NOBODY_S = {
    Names.SANDBOX: "i" + "0" * 20,
    Names.KEY: "6a1f3c9e-0000-4000-8000-00000000dead",
    Names.TEMPLATE: "nobodys",
    Names.SECRET: "nobodys",
    Names.VOLUME: "v" + "0" * 20,
}
WITH_IDS = [route for what in NOBODY_S for route in naming(what)]
CHOSEN = WITH_IDS if os.environ.get("WARREN_ATTACK_WHOLE") else WITH_IDS[:1]


@dataclass(frozen=True)
class Asked:
    """`things`: what exists and is another's."""

    server: ApiServer
    stranger: dict[str, str]
    things: dict[Names, tuple[str, ...]]

    async def seconds(self, route: Route, thing: str) -> float:
        line = line_of(route)
        since = time.perf_counter()
        answer = await self.server.client.request(
            route.method, path_of(route, thing), json=line.body, params=line.query, headers=self.stranger
        )
        taken = time.perf_counter() - since
        assert answer.status_code == 404
        return taken


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Asked]:
    async with api_server(tmp_path_factory.mktemp("api"), sql=True) as server:
        alive, ended = [
            (await server.client.post("/v2/sandboxes", json={"templateID": "base"})).json()["sandboxID"]
            for _ in range(2)
        ]
        await server.client.delete(f"/sandboxes/{ended}")
        key = (await server.control.context.keys.list(server.project))[0]
        await server.store.put_template(
            replace(BASE, id="tprivate", project_id=server.project.id, names=("mine",), public=False)
        )
        secret = (await server.client.post("/secrets", json={"name": "mine", "value": "x"})).json()["secretID"]
        volume = (await server.client.post("/volumes", json={"name": "mine", "sizeMB": 16})).json()["volumeID"]
        things = {
            Names.SANDBOX: (alive, ended),
            Names.KEY: (key.id,),
            Names.TEMPLATE: ("tprivate", "mine"),
            Names.SECRET: (secret, "mine"),
            Names.VOLUME: (volume,),
        }
        yield Asked(server, await server.other_project(), things)


def test_every_route_with_an_id_is_asked() -> None:
    # What a signed link or a token of its own opens is no project's to ask for.
    with_ids = [*WITH_IDS, *naming(Names.UPLOAD), *naming(Names.CONTENT)]
    assert {title(route) for route in with_ids} == {title(route) for route in ROUTES if "{" in route.path}
    assert {line.names for line in LINES.values()} == {*NOBODY_S, Names.NOTHING, Names.UPLOAD, Names.CONTENT}, (
        "add one to `things`"
    )


@pytest.mark.parametrize("route", CHOSEN, ids=title)
async def test_what_is_another_s_takes_no_longer_than_what_is_nobody_s(asked: Asked, route: Route) -> None:
    what = line_of(route).names
    for theirs in asked.things[what]:
        ratios: list[float] = []
        while not ratios or (min(ratios) > FACTOR and len(ratios) < ATTEMPTS):
            ratios.append(await _ratio(asked, route, theirs, NOBODY_S[what]))
        assert min(ratios) <= FACTOR, (theirs, ratios)


async def _ratio(asked: Asked, route: Route, *things: str) -> float:
    """The larger median by the smaller; each round asks in another order, so that none is always the second."""
    taken: dict[str, list[float]] = {thing: [] for thing in things}
    for order in itertools.islice(itertools.cycle(itertools.permutations(things)), SAMPLES):
        for thing in order:
            taken[thing].append(await asked.seconds(route, thing))
    medians = [statistics.median(times) for times in taken.values()]
    return max(medians) / min(medians)
