"""What every store must do about templates, their builds and tags. Subclass `TemplateStoreSuite` like `StoreSuite`."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_suite import HOME, MANY, ODD_TEXT, OTHER, PROJECT, SECOND, T0, sandbox, template
from warren.contracts.store import Store
from warren.contracts.template_store import BuildQuery, LineQuery, TemplateQuery
from warren.model import limits
from warren.model.build import Build, BuildLine, BuildStatus, Built, LogLevel
from warren.model.errors import LimitReached, TemplateInUse
from warren.model.idle import Ladder
from warren.model.sandbox import Resources, State
from warren.model.template import TemplateTag

BUILT = Built(
    digest="sha256:" + "1" * 64,
    default_user="root",
    default_workdir="/srv",
    envs={"PATH": "/bin", "ODD": "ü=\n"},
    start_command="serve",
    ready_command="true",
    checkpoint_id="c" + "1" * 20,
)


def build(number: int = 0, **changes: object) -> Build:
    at = T0 + number * SECOND
    row = Build(
        id=f"44444444-0000-4000-8000-{number:012}",
        template_id=f"tnew{number}",
        server_id=HOME.id,
        status=BuildStatus.WAITING,
        resources=Resources(cpu_count=3, memory_mb=129, disk_mb=65, pids=7),
        created_at=at,
        updated_at=at,
        tags=("default",),
    )
    return replace(row, **changes)  # pyright: ignore[reportArgumentType]


def line(number: int, level: LogLevel = LogLevel.INFO, message: str | None = None) -> BuildLine:
    return BuildLine(T0 + number * SECOND, level, message or f"line {number}", str(number) if number else None)


async def built(store: Store, name: str, number: int, *tags: str, project_id: str = PROJECT.id) -> Build:
    """A build of its own digest and checkpoint, requested, run and finished."""
    made = await store.request_build(project_id, name, build(number, tags=tags or ("default",)))
    at = made.created_at
    assert await store.claim_build(made.template_id, made.id, at) is not None
    digest, checkpoint = f"sha256:{number:064}", f"c{number:020}"
    assert await store.finish_build(
        made.template_id, made.id, replace(BUILT, digest=digest, checkpoint_id=checkpoint), at
    )
    return made


@pytest.mark.anyio
class TemplateStoreSuite:
    @pytest.fixture(autouse=True)
    async def projects(self, store: Store) -> None:
        await store.open()
        await store.add_project(PROJECT)
        await store.add_project(OTHER)

    # --- finished ones -------------------------------------------------------------------------------------

    async def test_a_template_is_found_by_id_and_name_and_replaced(self, store: Store) -> None:
        first = template("t1", names=["base", "default"])
        await store.put_template(first)
        assert [await store.find_template(PROJECT.id, name) for name in ("t1", "base", "default")] == [first] * 3
        second = replace(
            first, names=("base",), runtime="crun", default_user="root", public=False, envs={"A": "1"},
            start_command="serve", ready_command="true", checkpoint_id="c1", server_id=HOME.id,
        )  # fmt: skip
        await store.put_template(second)
        await store.put_template(second)
        assert await store.find_template(PROJECT.id, "base") == second
        assert await store.find_template(PROJECT.id, "default") is None

    async def test_the_project_s_own_template_wins_over_a_built_in_one(self, store: Store) -> None:
        built_in = template("t1", names=["base", "t3"], age=9)
        own = template("t2", PROJECT, ["base"], age=8)
        theirs = replace(template("t3", OTHER, ["secret"], age=7), public=False)
        for row in (own, theirs, built_in):
            await store.put_template(row)
        assert await store.find_template(PROJECT.id, "base") == own
        assert await store.find_template(OTHER.id, "base") == built_in
        assert await store.find_template(OTHER.id, "t3") == theirs
        assert await store.find_template(PROJECT.id, "t3") == built_in
        assert await store.find_template(PROJECT.id, "secret") is None
        entries = await store.templates(TemplateQuery(PROJECT.id))
        assert [(one.id, one.names, one.build_count) for one in entries] == [
            ("t2", ("base",), 1),
            ("t1", ("base", "t3"), 1),
        ]

    async def test_a_public_template_of_others_is_found_by_id_and_by_its_project_s_name(self, store: Store) -> None:
        theirs = template("t3", OTHER, ["shared"])
        await store.put_template(theirs)
        assert await store.find_template(PROJECT.id, "shared") is None
        assert await store.template_entry(PROJECT.id, "shared") is None
        assert await store.templates(TemplateQuery(PROJECT.id)) == []
        for found in (await store.find_template(PROJECT.id, "t3"), await store.public_template("two", "shared")):
            assert found == theirs
        assert await store.public_template("two", "shared", "v1") is None
        assert await store.public_template("one", "shared") is None
        entry = await store.public_entry("two", "shared")
        assert entry is not None and entry == await store.template_entry(PROJECT.id, "t3")
        await store.set_public("t3", False, T0)
        assert await store.find_template(PROJECT.id, "t3") is None
        assert await store.template_entry(PROJECT.id, "t3") is None
        assert await store.public_template("two", "shared") is None
        assert await store.public_entry("two", "shared") is None

    async def test_a_template_keeps_its_ladder_until_it_is_taken_away(self, store: Store) -> None:
        row, ladder, later = template("t1", names=["base"]), Ladder(60, None, 1800), T0 + timedelta(hours=1)
        await store.put_template(row)
        await store.put_template(template("t2", PROJECT, ["mine"]))
        assert await store.ladders() == {}
        await store.set_ladder("t1", ladder, later)
        await store.set_ladder("t2", Ladder(), later)
        await store.put_template(row)
        assert await store.ladders() == {"t1": ladder, "t2": Ladder()}
        entry = await store.template_entry(PROJECT.id, "t2")
        assert entry is not None and (entry.ladder, entry.updated_at) == (Ladder(), later)
        await store.set_ladder("t1", None, later)
        await store.remove_template("t2")
        assert await store.ladders() == {}

    async def test_an_own_name_is_not_taken_for_another_s_id(self, store: Store) -> None:
        own = template("t1", PROJECT, ["t3"], age=1)
        for row in (own, template("t3", OTHER, ["shared"])):
            await store.put_template(row)
        assert await store.find_template(PROJECT.id, "t3") == own

    # --- builds --------------------------------------------------------------------------------------------

    async def test_the_first_build_of_a_name_makes_a_template_and_the_next_finds_it(self, store: Store) -> None:
        first = await store.request_build(PROJECT.id, "mine", build(1))
        assert first == build(1)
        for name in ("mine", "tnew1"):
            assert (await store.request_build(PROJECT.id, name, build(len(name)))).template_id == "tnew1"
        assert (await store.request_build(OTHER.id, "mine", build(9))).template_id == "tnew9"
        assert await store.build("tnew1", build(4).id) == replace(build(4), template_id="tnew1")
        assert await store.build("tnew9", build(4).id) is None
        entry = await store.template_entry(PROJECT.id, "mine")
        assert entry is not None
        assert (entry.id, entry.public, entry.build_count, entry.build.id) == ("tnew1", False, 3, build(5).id)
        assert (entry.created_at, entry.updated_at) == (build(1).created_at, build(5).created_at)
        assert await store.find_template(PROJECT.id, "mine") is None

    async def test_names_asked_for_at_once_make_one_template(self, store: Store) -> None:
        made = await asyncio.gather(*(store.request_build(PROJECT.id, "mine", build(n)) for n in range(8)))
        assert len({one.template_id for one in made}) == 1
        assert len(await store.templates(TemplateQuery(PROJECT.id))) == 1

    async def test_a_build_goes_its_way_once(self, store: Store) -> None:
        await store.request_build(PROJECT.id, "mine", build(1))
        where = ("tnew1", build(1).id)
        assert not await store.finish_build(*where, BUILT, T0)
        claims = await asyncio.gather(*(store.claim_build(*where, T0 + SECOND) for _ in range(4)))
        (claimed,) = [claim for claim in claims if claim is not None]
        assert (claimed.status, claimed.updated_at) == (BuildStatus.BUILDING, T0 + SECOND)
        assert await store.finish_build(*where, BUILT, T0 + 2 * SECOND)
        done = await store.build(*where)
        assert done is not None
        assert (done.status, done.built, done.finished_at) == (BuildStatus.READY, BUILT, T0 + 2 * SECOND)
        assert not await store.finish_build(*where, BUILT, T0)
        assert not await store.fail_build(*where, "late", None, T0)
        assert await store.claim_build(*where, T0) is None
        assert await store.build(*where) == done

    async def test_a_build_fails_from_waiting_or_building_and_says_why(self, store: Store) -> None:
        for number in (1, 2):
            made = await store.request_build(PROJECT.id, "mine", build(number))
            if number == 2:
                await store.claim_build(made.template_id, made.id, T0)
            assert await store.fail_build(made.template_id, made.id, ODD_TEXT, "3", T0 + SECOND)
            assert not await store.fail_build(made.template_id, made.id, "again", None, T0)
            ended = await store.build(made.template_id, made.id)
            assert ended is not None and ended.reason is not None
            assert (ended.status, ended.reason_step, ended.finished_at) == (BuildStatus.ERROR, "3", T0 + SECOND)
            assert ended.reason.startswith("naïve \U0001f407")
        assert not await store.fail_build("tnew1", build(99).id, "none", None, T0)

    async def test_a_server_finds_what_it_left_unfinished(self, store: Store) -> None:
        for number in range(4):
            await store.request_build(PROJECT.id, f"n{number}", build(number))
        await store.request_build(OTHER.id, "n", build(7, server_id="elsewhere"))
        await store.claim_build("tnew1", build(1).id, T0)
        await store.fail_build("tnew2", build(2).id, "x", None, T0)
        left = await store.unfinished_builds(HOME.id)
        assert [(one.id, one.status) for one in left] == [
            (build(0).id, BuildStatus.WAITING),
            (build(1).id, BuildStatus.BUILDING),
            (build(3).id, BuildStatus.WAITING),
        ]

    async def test_a_finished_build_starts_sandboxes(self, store: Store) -> None:
        made = await built(store, "mine", 1)
        found = await store.find_template(PROJECT.id, "mine")
        assert found is not None
        assert (found.id, found.build_id, found.digest, found.server_id) == (
            "tnew1",
            made.id,
            f"sha256:{1:064}",
            HOME.id,
        )
        assert (found.default_user, found.default_workdir, found.envs) == ("root", "/srv", BUILT.envs)
        assert (found.start_command, found.ready_command, found.checkpoint_id) == ("serve", "true", f"c{1:020}")
        assert (found.resources, found.names, found.public) == (made.resources, ("mine",), False)
        assert await store.find_template(OTHER.id, "mine") is None

    async def test_a_rebuild_is_what_starts_once_it_is_finished(self, store: Store) -> None:
        first = await built(store, "mine", 1)
        second = await store.request_build(PROJECT.id, "mine", build(2))
        for end in (True, False):
            found, entry = await store.find_template(PROJECT.id, "mine"), await store.template_entry(PROJECT.id, "mine")
            assert found is not None and entry is not None
            assert (found.build_id, entry.build.id, entry.build_count) == (first.id, first.id, 2)
            if end:
                await store.fail_build(second.template_id, second.id, "x", None, T0)
        third = await built(store, "mine", 3)
        found, entry = await store.find_template(PROJECT.id, "mine"), await store.template_entry(PROJECT.id, "mine")
        assert found is not None and entry is not None
        assert (found.build_id, entry.build.id, entry.build_count) == (third.id, third.id, 3)

    async def test_projects_have_a_limit_of_open_builds_and_of_templates(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "PROJECT_MAX_BUILDS", 2)
        monkeypatch.setattr(limits, "PROJECT_MAX_TEMPLATES", 2)
        for number in (1, 2):
            await store.request_build(PROJECT.id, f"n{number}", build(number))
        with pytest.raises(LimitReached, match="build"):
            await store.request_build(PROJECT.id, "n1", build(3))
        await store.request_build(OTHER.id, "n1", build(4))
        await store.fail_build("tnew1", build(1).id, "x", None, T0)
        with pytest.raises(LimitReached, match="template"):
            await store.request_build(PROJECT.id, "n3", build(3))
        assert await store.request_build(PROJECT.id, "n1", build(3))

    async def test_old_builds_are_forgotten_but_tagged_and_open_ones_stay(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "TEMPLATE_BUILDS_KEPT", 2)
        tagged = await built(store, "mine", 0, "kept")
        open_ = await store.request_build(PROJECT.id, "mine", build(1))
        for number in range(2, 7):
            made = await store.request_build(PROJECT.id, "mine", build(number))
            await store.claim_build(made.template_id, made.id, T0)
            await store.add_build_lines(made.template_id, made.id, 0, [line(0)])
            await store.fail_build(made.template_id, made.id, "x", None, T0)
        last = await store.request_build(PROJECT.id, "mine", build(7))
        kept = [one.id for one in await store.builds(BuildQuery("tnew0"))]
        assert kept == [last.id, build(6).id, build(5).id, open_.id, tagged.id]
        assert await store.build_lines("tnew0", build(2).id, LineQuery()) == []

    async def test_builds_and_templates_come_in_pages(self, store: Store) -> None:
        for number in range(5):
            await store.request_build(PROJECT.id, "mine", build(number))
            await store.request_build(OTHER.id, f"n{number}", build(10 + number))
        query, seen = BuildQuery("tnew0", limit=2), list[str]()
        while page := await store.builds(query):
            seen += [one.id for one in page]
            query = replace(query, after=(page[-1].created_at, page[-1].id))
        assert seen == [build(number).id for number in (4, 3, 2, 1, 0)]
        wanted, names = TemplateQuery(OTHER.id, limit=2), list[str]()
        while entries := await store.templates(wanted):
            names += [one.names[0] for one in entries]
            wanted = replace(wanted, after=(entries[-1].created_at, entries[-1].id))
        assert names == ["n4", "n3", "n2", "n1", "n0"]

    # --- tags ----------------------------------------------------------------------------------------------

    async def test_tags_name_builds(self, store: Store) -> None:
        one, two = await built(store, "mine", 1, "v1", "stable"), await built(store, "mine", 2, "v2")
        found = [await store.find_template(PROJECT.id, "mine", tag) for tag in ("v1", "stable", "v2")]
        assert [None if each is None else each.build_id for each in found] == [one.id, one.id, two.id]
        assert await store.find_template(PROJECT.id, "mine") is None
        assert await store.template_tags("tnew1") == [
            TemplateTag("stable", one.id, one.created_at),
            TemplateTag("v1", one.id, one.created_at),
            TemplateTag("v2", two.id, two.created_at),
        ]
        assert await store.assign_tags("tnew1", "v2", ["stable", "new"], T0) == two.id
        assert await store.assign_tags("tnew1", "none", ["x"], T0) is None
        assert await store.assign_tags("tnone", "v2", ["x"], T0) is None
        names = {each.tag: each.build_id for each in await store.template_tags("tnew1")}
        assert names == {"v1": one.id, "v2": two.id, "stable": two.id, "new": two.id}
        assert await store.remove_tags("tnew1", ["v1", "none"])
        assert not await store.remove_tags("tnew1", ["v1"])
        assert await store.find_template(PROJECT.id, "mine", "v1") is None

    async def test_a_template_has_a_limit_of_tags(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "TEMPLATE_MAX_TAGS", 3)
        await built(store, "mine", 1, "a", "b")
        assert await store.assign_tags("tnew1", "a", ["b", "c"], T0)
        with pytest.raises(LimitReached):
            await store.assign_tags("tnew1", "a", ["a", "d"], T0)
        assert [tag.tag for tag in await store.template_tags("tnew1")] == ["a", "b", "c"]

    async def test_what_tags_and_sandboxes_stand_on_is_referenced(self, store: Store) -> None:
        await built(store, "mine", 1, "v1")
        await built(store, "mine", 2, "v1")
        await store.add_sandbox(sandbox(1, digest="sha256:live"), MANY)
        await store.add_sandbox(sandbox(2, digest="sha256:gone", state=State.GONE), MANY)
        assert await store.referenced_images() == {f"sha256:{2:064}", "sha256:live"}
        assert await store.referenced_checkpoints() == {f"c{2:020}"}
        await store.remove_tags("tnew1", ["v1"])
        assert await store.referenced_images() == {"sha256:live"}
        assert await store.referenced_checkpoints() == frozenset()

    # --- deletion, use -------------------------------------------------------------------------------------

    async def test_a_template_in_use_stays(self, store: Store) -> None:
        made = await built(store, "mine", 1)
        row = sandbox(1, template_id="tnew1", state=State.PAUSED)
        await store.add_sandbox(row, MANY)
        with pytest.raises(TemplateInUse):
            await store.remove_template("tnew1")
        assert await store.build("tnew1", made.id) is not None
        await store.move(row.id, frozenset({State.PAUSED}), State.KILLING)
        await store.move(row.id, frozenset({State.KILLING}), State.GONE)
        assert await store.remove_template("tnew1")
        assert not await store.remove_template("tnew1")
        assert await store.build("tnew1", made.id) is None
        assert await store.template_entry(PROJECT.id, "mine") is None
        assert await store.template_tags("tnew1") == []

    async def test_an_end_after_the_deletion_changes_nothing(self, store: Store) -> None:
        made = await store.request_build(PROJECT.id, "mine", build(1))
        await store.claim_build(made.template_id, made.id, T0)
        await store.remove_template(made.template_id)
        assert not await store.add_build_lines(made.template_id, made.id, 0, [line(0)])
        assert not await store.finish_build(made.template_id, made.id, BUILT, T0)
        assert not await store.fail_build(made.template_id, made.id, "x", None, T0)

    async def test_starts_are_counted_but_not_of_built_in_ones(self, store: Store) -> None:
        await store.put_template(template("t1", names=["base"]))
        await built(store, "mine", 1)
        for number, template_id in enumerate(("t1", "tnew1", "tnew1")):
            await store.add_sandbox(sandbox(number, template_id=template_id), MANY)
        mine, base = await store.template_entry(PROJECT.id, "mine"), await store.template_entry(PROJECT.id, "base")
        assert mine is not None and base is not None
        assert (mine.spawn_count, mine.last_spawned_at) == (2, sandbox(2).created_at)
        assert (base.spawn_count, base.last_spawned_at) == (0, None)

    # --- logs ----------------------------------------------------------------------------------------------

    async def test_lines_come_in_their_order_by_offset_level_and_time(self, store: Store) -> None:
        made = await store.request_build(PROJECT.id, "mine", build(1))
        where = (made.template_id, made.id)
        assert not await store.add_build_lines(*where, 0, [line(0)])
        await store.claim_build(*where, T0)
        levels = list(LogLevel)
        said = [line(number, levels[number % 4]) for number in range(8)]
        assert await store.add_build_lines(*where, 0, said[:5])
        assert await store.add_build_lines(*where, 5, said[5:])
        assert await store.add_build_lines(*where, 8, [])
        assert await store.build_lines(*where, LineQuery()) == said
        assert await store.build_lines(*where, LineQuery(offset=6)) == said[6:]
        assert await store.build_lines(*where, LineQuery(limit=2, offset=1)) == said[1:3]
        assert await store.build_lines(*where, LineQuery(level=LogLevel.WARN, offset=1)) == [said[3], said[6], said[7]]
        assert await store.build_lines(*where, LineQuery(ascending=False, limit=2)) == [said[7], said[6]]
        at = said[3].at
        assert await store.build_lines(*where, LineQuery(start=at)) == said[3:]
        assert await store.build_lines(*where, LineQuery(start=at, ascending=False)) == said[3::-1]

    async def test_a_long_line_is_cut(self, store: Store) -> None:
        made = await store.request_build(PROJECT.id, "mine", build(1))
        await store.claim_build(made.template_id, made.id, T0)
        long = [line(0, message="x" * (limits.BUILD_LINE_MAX + 1))]
        await store.add_build_lines(made.template_id, made.id, 0, long)
        (kept,) = await store.build_lines(made.template_id, made.id, LineQuery())
        assert kept.message == "x" * limits.BUILD_LINE_MAX
