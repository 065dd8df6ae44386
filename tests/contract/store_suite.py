"""What every store must do. Subclass `StoreSuite` in a test module and give it an open, empty `store` as a fixture."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from warren.contracts.store import LogQuery, SandboxQuery, Store
from warren.model import limits
from warren.model.errors import AlreadyExists
from warren.model.observation import Level, LogEntry, Metric
from warren.model.pause import Lifecycle
from warren.model.policy import NetworkPolicy
from warren.model.project import ApiKey, Project, ProjectLimits
from warren.model.sandbox import TRANSITIONS, Desired, EndReason, Resources, Sandbox, State
from warren.model.server import Server
from warren.model.template import Template

T0 = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
ALL_STATES = frozenset(State)
MANY = 10_000
ODD_TEXT = "naïve \U0001f407 \0 \ud800 % _ ' \" \\"

PROJECT = Project(id="11111111-0000-4000-8000-000000000001", name="one", created_at=T0)
OTHER = Project(id="11111111-0000-4000-8000-000000000002", name="two", created_at=T0 + SECOND)


HOME = Server("33333333-0000-4000-8000-000000000001", "here", T0)
AWAY = Server("33333333-0000-4000-8000-000000000002", "away", T0)


def sandbox(number: int = 0, project: Project = PROJECT, state: State = State.RUNNING, **changes: object) -> Sandbox:
    started = T0 + number * SECOND
    row = Sandbox(
        id=f"i{number:020}",
        project_id=project.id,
        template_id="base",
        root_template_id="root",
        alias="base",
        runtime="crun",
        resources=Resources(cpu_count=3, memory_mb=129, disk_mb=65, pids=7),
        state=state,
        desired=Desired.RUNNING,
        created_at=started,
        started_at=started,
        expires_at=started + 300 * SECOND,
        timeout_s=300,
        server_id=HOME.id,
    )
    return replace(row, **changes)  # pyright: ignore[reportArgumentType]


def key(number: int, project: Project = PROJECT) -> ApiKey:
    return ApiKey(f"key-{number}", project.id, f"name {number}", f"{number:064}", "e2b_…1234", T0 + number * SECOND)


def template(id: str, project: Project | None = None, names: Sequence[str] = (), age: int = 0) -> Template:
    return Template(
        id=id,
        project_id=None if project is None else project.id,
        names=tuple(names),
        build_id="22222222-0000-4000-8000-000000000001",
        digest="sha256:" + "0" * 64,
        resources=Resources(),
        created_at=T0 - age * SECOND,
    )


def metric(number: int, at: datetime) -> Metric:
    return Metric(f"i{number:020}", at, 2, 12.5, 1 << 40, 2 << 40, 3, 4, 5)


def entry(number: int, level: Level = Level.INFO, message: str | None = None) -> LogEntry:
    return LogEntry(T0 + number * SECOND, level, "guest", message or f"line {number}", {"n": str(number)})


async def ids(store: Store, **query: object) -> list[int]:
    asked = SandboxQuery(project_id=PROJECT.id)
    return [int(row.id[1:]) for row in await store.sandboxes(replace(asked, **query))]  # pyright: ignore


class StoreSuite:
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    async def projects(self, store: Store) -> None:
        await store.add_project(PROJECT)
        await store.add_project(OTHER)

    # --- projects and keys ---------------------------------------------------------------------------------

    async def test_projects_come_back_whole_and_oldest_first(self, store: Store) -> None:
        odd = Project("id-3", "three", T0 - SECOND, ProjectLimits(1, 2, 3, 4, 5))
        await store.add_project(odd)
        assert await store.projects() == [odd, PROJECT, OTHER]
        assert await store.project(odd.id) == odd
        assert await store.project("nobody") is None

    async def test_limits_of_a_project_are_changed_and_no_other_s(self, store: Store) -> None:
        changed = replace(PROJECT, limits=ProjectLimits(7, 6, 5, 4, 3, 2, 1))
        assert await store.set_limits(PROJECT.id, changed.limits)
        assert not await store.set_limits("nobody", ProjectLimits())
        assert [await store.project(project.id) for project in (PROJECT, OTHER)] == [changed, OTHER]

    async def test_a_project_name_is_taken_once_and_a_retry_is_no_second_time(self, store: Store) -> None:
        await store.add_project(PROJECT)
        with pytest.raises(AlreadyExists, match="cannot"):
            await store.add_project(replace(PROJECT, id="another"))
        assert await store.project("another") is None

    async def test_a_key_leads_to_its_project_until_it_is_revoked(self, store: Store) -> None:
        mine, theirs = key(1), key(2, OTHER)
        await store.add_key(mine)
        await store.add_key(theirs)
        assert await store.key_owner(mine.digest) == (mine, PROJECT)
        assert await store.key_owner(theirs.digest) == (theirs, OTHER)
        assert await store.key_owner("unknown") is None
        assert not await store.revoke_key(PROJECT.id, theirs.id)
        assert await store.revoke_key(OTHER.id, theirs.id)
        assert not await store.revoke_key(OTHER.id, theirs.id)
        assert await store.key_owner(theirs.digest) is None
        assert await store.keys(OTHER.id) == []

    async def test_keys_are_listed_renamed_and_touched(self, store: Store) -> None:
        for number in (2, 1):
            await store.add_key(key(number))
        assert await store.keys(PROJECT.id) == [key(1), key(2)]
        assert await store.rename_key(PROJECT.id, "key-1", "new")
        assert not await store.rename_key(OTHER.id, "key-2", "stolen")
        await store.touch_key("key-1", T0 + SECOND)
        await store.touch_key("key-1", T0)  # late news does not turn the clock back
        await store.touch_key("unknown", T0)
        assert await store.keys(PROJECT.id) == [replace(key(1), name="new", last_used_at=T0 + SECOND), key(2)]

    # --- sandboxes -----------------------------------------------------------------------------------------

    async def test_a_sandbox_comes_back_whole(self, store: Store) -> None:
        network = NetworkPolicy(False, ("1.2.3.4",), ("0.0.0.0/0", "9.9.9.0/24"), False, "x:${PORT}")
        row = sandbox(alias=None, secured=False, network=network, metadata={"k": "v", "": "", "ü": ODD_TEXT})
        assert await store.add_sandbox(row, quota=1)
        assert await store.sandbox(PROJECT.id, row.id) == row

    async def test_a_sandbox_is_seen_by_its_own_project_only(self, store: Store) -> None:
        await store.add_sandbox(sandbox(1), MANY)
        await store.add_sandbox(sandbox(2, OTHER), MANY)
        assert await store.sandbox(OTHER.id, sandbox(1).id) is None
        assert await ids(store) == [1]
        assert await store.count_running(PROJECT.id) == 1
        assert [row.id for row in await store.live_sandboxes(HOME.id)] == [sandbox(1).id, sandbox(2).id]

    async def test_the_quota_counts_what_holds_a_place(self, store: Store) -> None:
        for number, state in enumerate(State):
            assert await store.add_sandbox(sandbox(number, state=state), MANY)
        assert not await store.add_sandbox(sandbox(9), quota=5)
        assert await store.sandbox(PROJECT.id, sandbox(9).id) is None
        assert await store.add_sandbox(sandbox(9, OTHER), quota=1)
        assert await store.add_sandbox(sandbox(10), quota=6)

    async def test_adding_twice_is_a_retry_but_an_id_is_used_once(self, store: Store) -> None:
        assert await store.add_sandbox(sandbox(1), quota=1)
        assert await store.add_sandbox(sandbox(1), quota=1)
        with pytest.raises(AlreadyExists):
            await store.add_sandbox(sandbox(1, OTHER), MANY)

    async def test_a_hundred_at_once_against_a_quota_of_ten_gives_ten(self, store: Store) -> None:
        added = await asyncio.gather(*(store.add_sandbox(sandbox(n, state=State.CREATING), 10) for n in range(100)))
        assert sum(added) == 10
        assert len(await store.live_sandboxes(HOME.id)) == 10

    async def test_a_list_shows_running_ones_newest_first(self, store: Store) -> None:
        for number, state in enumerate([State.RUNNING, *State, State.RUNNING]):
            await store.add_sandbox(sandbox(number, state=state), MANY)
        assert await ids(store) == [8, 2, 0]
        assert await ids(store, ascending=True, limit=2) == [0, 2]

    @pytest.mark.parametrize("ascending", [True, False])
    async def test_pages_over_equal_start_times_miss_and_repeat_nothing(self, store: Store, ascending: bool) -> None:
        for number in range(10):
            await store.add_sandbox(sandbox(number, started_at=T0 + number // 4 * MICROSECOND), MANY)
        seen: list[Sandbox] = []
        query = SandboxQuery(PROJECT.id, ascending=ascending, limit=3)
        while page := await store.sandboxes(query):
            seen += page
            query = replace(query, after=(page[-1].started_at, page[-1].id))
        assert [int(row.id[1:]) for row in seen] == list(range(10))[:: 1 if ascending else -1]

    async def test_a_list_filters_by_metadata_template_and_start(self, store: Store) -> None:
        await store.add_sandbox(sandbox(1, metadata={"a": "1", "b": "2"}), MANY)
        await store.add_sandbox(sandbox(2, metadata={"a": "1", "b": ODD_TEXT * 500}, template_id="t2"), MANY)
        await store.add_sandbox(sandbox(3, metadata={"a": "12", "ab": "1"}, template_id="t3"), MANY)
        assert await ids(store, metadata={"a": "1"}) == [2, 1]
        assert await ids(store, metadata={"a": "1", "b": "2"}) == [1]
        assert await ids(store, metadata={"b": ODD_TEXT * 500}) == [2]
        assert await ids(store, metadata={"a": "2"}) == []
        assert await ids(store, metadata={str(n): "x" for n in range(5000)}) == []
        assert await ids(store, template_ids=frozenset({"t2", "t3"})) == [3, 2]
        assert await ids(store, template_ids=frozenset()) == []
        assert await ids(store, started_after=T0 + 2 * SECOND) == [3, 2]
        assert await ids(store, started_after=T0 + 2 * SECOND + MICROSECOND) == [3]

    @pytest.mark.parametrize("to", State)
    @pytest.mark.parametrize("state", State)
    async def test_a_move_follows_the_table_of_transitions(self, store: Store, state: State, to: State) -> None:
        row = sandbox(state=state)
        await store.add_sandbox(row, MANY)
        moved = await store.move(row.id, ALL_STATES, to)
        if to in TRANSITIONS[state]:
            assert moved == replace(row, state=to)
            assert await store.sandbox(PROJECT.id, row.id) == moved
        else:
            assert moved is None
            assert await store.sandbox(PROJECT.id, row.id) == row

    async def test_a_move_needs_the_expected_state(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        assert await store.move(sandbox().id, frozenset({State.CREATING}), State.KILLING) is None
        assert await store.move(sandbox().id, frozenset(), State.KILLING) is None
        assert await store.move("unknown", ALL_STATES, State.KILLING) is None

    async def test_of_many_who_move_at_once_one_wins(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        moves = (store.move(sandbox().id, frozenset({State.RUNNING}), State.KILLING) for _ in range(20))
        assert sum(row is not None for row in await asyncio.gather(*moves)) == 1

    async def test_running_starts_the_times_and_happens_once(self, store: Store) -> None:
        row = sandbox(state=State.CREATING)
        await store.add_sandbox(row, MANY)
        times = (T0 + 5 * SECOND, T0 + 305 * SECOND)
        running = replace(row, state=State.RUNNING, started_at=times[0], expires_at=times[1])
        assert await store.mark_running(row.id, *times) == running
        assert await store.sandbox(PROJECT.id, row.id) == running
        assert await store.mark_running(row.id, *times) is None
        assert await store.mark_running("unknown", *times) is None

    @pytest.mark.parametrize("state", [state for state in State if state.is_live])
    async def test_the_first_reason_of_an_end_stays(self, store: Store, state: State) -> None:
        row = sandbox(state=state)
        await store.add_sandbox(row, MANY)
        assert await store.mark_gone(row.id, EndReason.DIED, T0)
        assert not await store.mark_gone(row.id, EndReason.KILLED, T0 + SECOND)
        assert not await store.mark_gone("unknown", EndReason.KILLED, T0)
        gone = await store.sandbox(PROJECT.id, row.id)
        assert gone == replace(row, state=State.GONE, end_reason=EndReason.DIED, ended_at=T0)
        assert await store.live_sandboxes(HOME.id) == []

    async def test_an_end_by_the_deadline_needs_that_it_has_come(self, store: Store) -> None:
        row = sandbox()
        await store.add_sandbox(row, MANY)
        assert await store.mark_killing(row.id, EndReason.EXPIRED, row.expires_at - MICROSECOND) is None
        assert await store.sandbox(PROJECT.id, row.id) == row
        assert await store.mark_killing(row.id, EndReason.EXPIRED, row.expires_at)

    @pytest.mark.parametrize("state", State)
    async def test_an_end_of_what_sleeps_leaves_alone_what_does_not(self, store: Store, state: State) -> None:
        row = sandbox(state=state)
        await store.add_sandbox(row, MANY)
        ended = await store.mark_killing(row.id, EndReason.PAUSED_TOO_LONG, if_paused=True)
        assert (ended is not None) is (state is State.PAUSED)
        assert ended is not None or await store.sandbox(PROJECT.id, row.id) == row

    @pytest.mark.parametrize("state", State)
    async def test_a_kill_says_why_and_that_stays_the_reason(self, store: Store, state: State) -> None:
        row = sandbox(state=state)
        await store.add_sandbox(row, MANY)
        killing = replace(row, state=State.KILLING, desired=Desired.GONE, end_reason=EndReason.EXPIRED)
        assert await store.mark_killing(row.id, EndReason.EXPIRED) == (killing if state.can_kill else None)
        assert await store.mark_killing(row.id, EndReason.KILLED) is None
        assert await store.mark_killing("unknown", EndReason.KILLED) is None
        if state.can_kill:
            assert await store.mark_gone(row.id, EndReason.KILLED, T0)
            gone = replace(killing, state=State.GONE, ended_at=T0)
            assert await store.sandbox(PROJECT.id, row.id) == gone

    async def test_a_deadline_moves_and_with_only_extend_never_nearer(self, store: Store) -> None:
        row = sandbox()
        await store.add_sandbox(row, MANY)
        earlier, later = row.expires_at - SECOND, row.expires_at + MICROSECOND
        assert await store.set_deadline(row.id, earlier, only_extend=True) == row
        assert await store.set_deadline(row.id, later, only_extend=True) == replace(row, expires_at=later)
        assert await store.set_deadline(row.id, earlier, only_extend=False) == replace(row, expires_at=earlier)
        await store.move(row.id, ALL_STATES, State.KILLING)
        assert await store.set_deadline(row.id, later, only_extend=False) is None

    async def test_overdue_are_the_running_ones_whose_deadline_has_come(self, store: Store) -> None:
        for number, state in enumerate([State.RUNNING, *State]):
            await store.add_sandbox(sandbox(number, project=OTHER if number else PROJECT, state=state), MANY)
        first, second = sandbox(0), sandbox(2)
        assert await store.overdue(HOME.id, first.expires_at - MICROSECOND) == []
        assert await store.overdue(HOME.id, first.expires_at) == [first]
        overdue = await store.overdue(HOME.id, T0 + 9999 * SECOND)
        assert sorted(row.id for row in overdue) == [first.id, second.id]
        assert await store.overdue(AWAY.id, T0 + 9999 * SECOND) == []

    @pytest.mark.parametrize("state", list(State))
    async def test_who_is_wished_gone_is_overdue_until_its_end_begins(self, store: Store, state: State) -> None:
        row = sandbox(state=state)
        await store.add_sandbox(row, MANY)
        wished = replace(row, desired=Desired.GONE)
        assert await store.wish_gone(row.id) == (wished if state.is_live else None)
        assert await store.wish_gone("unknown") is None
        assert await store.overdue(HOME.id, T0) == ([wished] if state.can_kill else [])
        assert await store.overdue(AWAY.id, T0) == []

    @pytest.mark.parametrize("state", list(State))
    async def test_a_network_policy_is_replaced_while_it_runs_or_sleeps(self, store: Store, state: State) -> None:
        row = sandbox(network=NetworkPolicy(mask_host="a"), state=state)
        await store.add_sandbox(row, MANY)
        changed = replace(row, network=NetworkPolicy(allow_internet=False, deny_out=("8.8.8.8",)))
        settled = state in (State.RUNNING, State.PAUSED)
        assert await store.set_network(row.id, changed) == (changed if settled else None)
        assert await store.sandbox(PROJECT.id, row.id) == (changed if settled else row)

    async def test_prune_forgets_the_long_gone_with_all_they_left(self, store: Store) -> None:
        for number in range(60):
            await store.add_sandbox(sandbox(number, metadata={"k": "v"}), MANY)
            await store.add_metrics([metric(number, T0)])
            await store.add_logs(sandbox(number).id, [entry(number)])
        for number in range(50):
            await store.mark_gone(sandbox(number).id, EndReason.KILLED, T0 + number * SECOND)
        assert await store.prune_gone(T0 + 45 * SECOND) == 45
        assert await store.prune_gone(T0 + 45 * SECOND) == 0
        assert await store.sandbox(PROJECT.id, sandbox(44).id) is None
        assert await store.sandbox(PROJECT.id, sandbox(45).id) is not None
        assert await store.metrics(sandbox(44).id, None, None, 10) == []
        assert await store.logs(sandbox(44).id, LogQuery()) == []
        assert await store.logs(sandbox(45).id, LogQuery()) == [entry(45)]
        assert await store.count_running(PROJECT.id) == 10

    # --- servers -------------------------------------------------------------------------------------------

    async def test_servers_register_once_and_beat(self, store: Store) -> None:
        for server in (HOME, AWAY, replace(HOME, name="renamed")):
            await store.register_server(server)
        await store.beat(HOME.id, T0 + SECOND)
        await store.beat("unknown", T0 + SECOND)
        assert await store.servers() == [AWAY, Server(HOME.id, "renamed", T0 + SECOND)]

    async def test_a_live_sandbox_has_a_home(self, store: Store) -> None:
        await store.register_server(HOME)
        for number, state in enumerate(State):
            await store.add_sandbox(sandbox(number, state=state), MANY)
            assert await store.home(sandbox(number).id) == (HOME if state.is_live else None)
        assert await store.home("unknown") is None

    async def test_each_server_has_its_own_sandboxes(self, store: Store) -> None:
        ours, theirs = sandbox(1), sandbox(2, server_id=AWAY.id)
        for row in (ours, theirs):
            await store.add_sandbox(row, MANY)
        assert await store.live_sandboxes(HOME.id) == [ours]
        assert await store.live_sandboxes(AWAY.id) == [theirs]
        assert await store.sandbox(PROJECT.id, theirs.id) == theirs
        assert await ids(store) == [2, 1]

    async def test_the_first_server_takes_the_sandboxes_that_have_none(self, store: Store) -> None:
        await store.add_sandbox(sandbox(server_id=""), MANY)
        await store.register_server(HOME)
        await store.register_server(AWAY)
        assert await store.live_sandboxes(HOME.id) == [sandbox()]

    async def test_of_a_server_that_is_away_the_overdue_and_unwanted_are_lost(self, store: Store) -> None:
        await store.register_server(AWAY)
        now = T0 + 301 * SECOND
        due = [sandbox(number, state=state, server_id=AWAY.id) for number, state in enumerate(State)]
        for row in due:
            await store.add_sandbox(replace(row, expires_at=now), MANY)
        later = sandbox(8, OTHER, server_id=AWAY.id)
        unwanted = sandbox(9, server_id=AWAY.id)
        sleepy = sandbox(11, server_id=AWAY.id, expires_at=T0, lifecycle=Lifecycle(auto_pause=True))
        for row in (later, unwanted, sleepy, sandbox(10, expires_at=T0)):
            await store.add_sandbox(row, MANY)
        await store.wish_gone(unwanted.id)
        lost = await store.give_up(AWAY, now)
        assert {row.id for row in lost} == {row.id for row in due if row.state.is_live and not row.state.is_asleep} | {
            unwanted.id
        }
        assert {(row.state, row.end_reason, row.ended_at) for row in lost} == {(State.GONE, EndReason.LOST, now)}
        assert [row for row in await store.live_sandboxes(AWAY.id) if not row.state.is_asleep] == [later, sleepy]
        assert len(await store.live_sandboxes(HOME.id)) == 1
        assert await store.give_up(AWAY, now) == []

    async def test_a_server_that_came_back_loses_nothing(self, store: Store) -> None:
        await store.register_server(AWAY)
        await store.add_sandbox(sandbox(server_id=AWAY.id), MANY)
        await store.beat(AWAY.id, T0 + MICROSECOND)
        assert await store.give_up(AWAY, T0 + 9999 * SECOND) == []
        assert await store.give_up(HOME, T0 + 9999 * SECOND) == []
        assert len(await store.live_sandboxes(AWAY.id)) == 1

    # --- observations --------------------------------------------------------------------------------------

    async def test_metrics_come_in_order_within_their_range(self, store: Store) -> None:
        await store.add_sandbox(sandbox(1), MANY)
        samples = [metric(1, T0 + n * 5 * SECOND) for n in range(5)]
        await store.add_metrics(samples[::-1])
        await store.add_metrics([*samples, metric(404, T0)])
        id = sandbox(1).id
        assert await store.metrics(id, None, None, 10) == samples
        assert await store.metrics(id, None, None, 2) == samples[-2:]
        assert await store.metrics(id, samples[1].at, samples[3].at, 10) == samples[1:4]
        assert await store.metrics(id, T0 + 60 * SECOND, None, 10) == []
        assert await store.metrics(sandbox(404).id, None, None, 10) == []

    async def test_metrics_older_than_a_day_before_the_newest_are_dropped(self, store: Store) -> None:
        await store.add_sandbox(sandbox(1), MANY)
        day = timedelta(seconds=limits.METRICS_KEPT_PER_SANDBOX * limits.METRICS_PERIOD_S)
        for at in (T0, T0 + SECOND, T0 + SECOND + day):
            await store.add_metrics([metric(1, at)])
        kept = await store.metrics(sandbox(1).id, None, None, 10)
        assert [sample.at for sample in kept] == [T0 + SECOND, T0 + SECOND + day]

    async def test_latest_metrics_are_of_running_sandboxes_of_the_project(self, store: Store) -> None:
        await store.add_sandbox(sandbox(1), MANY)
        await store.add_sandbox(sandbox(2), MANY)
        await store.add_sandbox(sandbox(3, OTHER), MANY)
        await store.add_sandbox(sandbox(4), MANY)
        for number in (1, 2, 3):
            await store.add_metrics([metric(number, T0), metric(number, T0 + SECOND)])
        await store.mark_gone(sandbox(2).id, EndReason.DIED, T0)
        asked = [sandbox(number).id for number in (1, 2, 3, 4, 5)]
        assert await store.latest_metrics(PROJECT.id, asked) == {sandbox(1).id: metric(1, T0 + SECOND)}
        assert await store.latest_metrics(PROJECT.id, []) == {}

    async def test_logs_are_read_in_both_directions_and_filtered(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        lines = [entry(n, level) for n, level in enumerate(Level)] + [entry(4, message="100% LIKE_this")]
        await store.add_logs(sandbox().id, lines[:2])
        await store.add_logs(sandbox().id, lines[2:])

        async def read(**query: object) -> list[int]:
            found = await store.logs(sandbox().id, replace(LogQuery(), **query))  # pyright: ignore
            return [lines.index(line) for line in found]

        assert await read() == [0, 1, 2, 3, 4]
        assert await read(ascending=False, limit=2) == [4, 3]
        assert await read(start=T0 + 2 * SECOND, limit=2) == [2, 3]
        assert await read(start=T0 + 2 * SECOND, ascending=False) == [2, 1, 0]
        assert await read(level=Level.WARN) == [2, 3]
        assert await read(search="% LIKE_") == [4]
        assert await read(search="like") == []
        assert await read(search="line", level=Level.ERROR) == [3]

    async def test_log_lines_of_one_moment_keep_their_order(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        same = [replace(entry(n), at=T0) for n in range(20)]
        for line in same:
            await store.add_logs(sandbox().id, [line])
        assert await store.logs(sandbox().id, LogQuery()) == same
        assert await store.logs(sandbox().id, LogQuery(ascending=False)) == same[::-1]

    async def test_the_oldest_log_lines_make_room(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        await store.add_sandbox(sandbox(), MANY)
        total = limits.LOGS_KEPT_PER_SANDBOX + 7
        lines = [entry(n) for n in range(total)]
        for first in range(0, total, 500):
            await store.add_logs(sandbox().id, lines[first : first + 500])
        assert await store.logs(sandbox().id, LogQuery(limit=MANY * 2)) == lines[7:]

    async def test_log_text_is_cut_and_odd_text_does_no_harm(self, store: Store) -> None:
        await store.add_sandbox(sandbox(), MANY)
        long = entry(0, message="x" * (limits.LOG_MESSAGE_MAX + 1))
        odd = LogEntry(T0 + SECOND, Level.INFO, ODD_TEXT, ODD_TEXT, {ODD_TEXT: ODD_TEXT})
        await store.add_logs(sandbox().id, [long, odd])
        await store.add_logs("unknown", [odd])
        found = await store.logs(sandbox().id, LogQuery())
        assert [len(line.message) for line in found] == [limits.LOG_MESSAGE_MAX, len(ODD_TEXT)]
        assert await store.logs(sandbox().id, LogQuery(search=ODD_TEXT)) == found[1:]
