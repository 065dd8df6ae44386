"""What builds leave and nobody uses: it goes, and nothing else does, whatever happens meanwhile."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.test_control_building import BASE, RUN, Site, run
from warren.contracts.guest import Exit, GuestCommand, OnLine
from warren.control.build_layers import Layer, Layers, Leaving
from warren.control.garbage import surplus
from warren.control.templates import KeptImage, TemplateFiles
from warren.model import limits
from warren.model.build import Built, Recipe, Step
from warren.model.sandbox import Resources
from warren.model.template import Template

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024
DAYS = 24 * 3600.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path, anyio_backend: str) -> Site:
    site = await Site.opened(tmp_path)
    keep_image(site, BASE)
    return site


def keep_image(site: Site, digest: str, size: int = 5) -> None:
    source = Path(site.images.at(digest).path).parent.parent / f".{digest[-4:]}"
    source.write_bytes(bytes(size))
    site.images.adopt(source, digest)
    source.unlink()


def age(site: Site, days: float) -> None:
    """All that is there was last used so long ago."""
    then = site.builder._clock.now().timestamp() - days * DAYS  # pyright: ignore[reportPrivateUsage]
    for image in site.images.all():
        os.utime(Path(site.images.at(image.digest).path).parent, (then, then))
    for path in site.layers._folder.iterdir():  # pyright: ignore[reportPrivateUsage]
        os.utime(path, (then, then))


async def name_it(site: Site, built: Built, name: str = "mine") -> None:
    """A template whose tag names what was built."""
    await site.store.put_template(
        Template(name, "p1", (name,), name, built.digest, Resources(), NOW, checkpoint_id=built.checkpoint_id)
    )


def images(site: Site) -> set[str]:
    return {image.digest for image in site.images.all()}


async def built_and_over(site: Site, *steps: Step, recipe: Recipe | None = None) -> Built:
    built = await site.build(*steps, recipe=recipe)
    site.leases._held.clear()  # pyright: ignore[reportPrivateUsage]  # as Builds does at the end
    return built


async def test_what_nothing_stands_on_goes_once_it_is_old(site: Site) -> None:
    built = await built_and_over(site, run("one"))
    age(site, 13)
    assert (await site.garbage.collect()).images == 0
    age(site, 15)
    gone = await site.garbage.collect()
    assert (gone.images, gone.layers) == (1, 1)
    assert gone.bytes > MIB
    assert images(site) == {BASE}, "a template stands on this one"
    assert site.engine.machine.checkpoints == {}
    assert site.engine.dropped == [built.digest]
    assert site.layers.all() == []
    assert [path.name for path in Path(site.images.at(BASE).path).parent.parent.iterdir()] == [BASE[7:]]
    assert (await built_and_over(site, run("one"))).digest == built.digest
    assert site.ran == ["run one"]


async def test_its_time_begins_when_nothing_stands_on_it_any_more(site: Site) -> None:
    built = await built_and_over(site, run("one"))
    await name_it(site, built)
    age(site, 100)
    await site.garbage.collect()
    await site.store.remove_template("mine")
    assert (await site.garbage.collect()).images == 0
    age(site, 100)
    assert (await site.garbage.collect()).images == 1


async def test_memory_that_a_template_starts_from_stays(site: Site) -> None:
    recipe = Recipe(from_template="base", start_command="serve", ready_command="ready")
    mine = await built_and_over(site, run("one"), recipe=recipe)
    other = await built_and_over(site, run("one"), recipe=replace(recipe, start_command="other"))
    built_in = await built_and_over(site, run("one"), recipe=replace(recipe, start_command="third"))
    await name_it(site, mine)
    site.memories["digest"] = built_in.checkpoint_id or ""
    age(site, 100)
    await site.garbage.collect()
    assert set(site.engine.machine.checkpoints) == {mine.checkpoint_id, built_in.checkpoint_id}
    await site.store.remove_template("mine")
    await site.garbage.collect()
    assert set(site.engine.machine.checkpoints) == {built_in.checkpoint_id}
    assert other.checkpoint_id not in site.layers.checkpoints()


async def test_a_full_disk_of_them_takes_the_longest_unused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IMAGES_KEPT_MB", 2)
    names = [f"sha256:{letter * 64}" for letter in "cdef"]
    for number, name in enumerate(names):
        keep_image(site, name, MIB)
        then = site.builder._clock.now().timestamp() - (10 - number) * 3600  # pyright: ignore[reportPrivateUsage]
        os.utime(Path(site.images.at(name).path).parent, (then, then))
    assert (await site.garbage.collect()).images == 2
    assert images(site) == {BASE, *names[2:]}
    monkeypatch.setattr(limits, "IMAGES_KEPT_MB", 0)
    for name in names:
        site.images.use(name)
    assert (await site.garbage.collect()).images == 0, "somebody may be about to start from what was just used"


def interrupted(site: Site, by: Callable[[], object]) -> None:
    """The step `two` does this while it runs."""

    async def program(command: GuestCommand, on_line: OnLine) -> Exit:
        del command, on_line
        outcome = by()
        if asyncio.iscoroutine(outcome):
            await outcome
        return Exit(0)

    site.workshop.programs["two"] = program


async def test_a_build_at_work_keeps_what_it_began_with(site: Site) -> None:
    base = await built_and_over(site, run("zero"))
    await name_it(site, base, "middle")

    async def sweep() -> None:
        await site.store.remove_template("middle")
        age(site, 100)
        await site.garbage.collect()
        assert base.digest in images(site)

    interrupted(site, sweep)
    built = await site.build(run("one"), run("two"), recipe=Recipe(from_template="middle"))
    age(site, 100)
    await site.garbage.collect()
    assert images(site) == {BASE, base.digest, built.digest}, "the store does not refer to it yet"
    site.leases._held.clear()  # pyright: ignore[reportPrivateUsage]
    await name_it(site, built)
    await site.garbage.collect()
    age(site, 100)
    await site.garbage.collect()
    assert images(site) == {BASE, built.digest}


async def test_a_layer_that_is_swept_while_a_build_reaches_for_it_is_made_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await built_and_over(site, run("one"))
    create = site.engine.create

    async def swept_before(spec: object) -> object:
        monkeypatch.setattr(site.engine, "create", create)
        age(site, 100)
        await site.garbage.collect()
        return await create(spec)  # type: ignore[arg-type]

    monkeypatch.setattr(site.engine, "create", swept_before)
    await site.build(run("one"), run("three"))
    assert site.ran == ["run one", "run three"]


async def test_an_image_that_is_used_while_it_is_looked_at_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    built = await built_and_over(site, run("one"))
    age(site, 100)
    listed = site.images.all

    def used_after() -> list[KeptImage]:
        found = listed()
        site.images.use(built.digest)
        return found

    monkeypatch.setattr(site.images, "all", used_after)
    assert (await site.garbage.collect()).images == 0
    assert built.digest in images(site)


async def test_a_database_that_is_away_is_no_build_s_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> frozenset[str]:
        raise OSError("away")

    monkeypatch.setattr(site.store, "referenced_images", away)
    await site.build(Step(RUN, ("one",)))


def test_a_server_that_starts_clears_what_was_half_made(tmp_path: Path) -> None:
    files = TemplateFiles(tmp_path / "templates")
    files.open()
    source = tmp_path / "source"
    source.write_bytes(b"x")
    files.adopt(source, "sha256:whole")
    half = tmp_path / "templates" / "half"
    half.mkdir()
    (half / "rootfs.erofs.77").write_bytes(b"x")
    (tmp_path / "templates" / "whole" / "rootfs.erofs.77").write_bytes(b"x")
    (tmp_path / "templates" / ".baked").write_bytes(b"x")
    (tmp_path / "templates" / ".gone").mkdir()
    (tmp_path / "templates" / ".gone" / "rootfs.erofs").write_bytes(b"x")
    assert [image.digest for image in files.all()] == ["sha256:whole"]
    files.open()
    assert [path.relative_to(tmp_path / "templates").as_posix() for path in (tmp_path / "templates").rglob("*")] == [
        "whole",
        "whole/rootfs.erofs",
    ]


def test_the_longest_unused_go_first() -> None:
    now = 1_000_000_000.0
    layers = [Layer(name, Leaving.FILES, name, MIB, now - number) for number, name in enumerate("abc")]
    image = Layer("i", Leaving.IMAGE, "sha256:x", 0, now - 50)
    assert [one.key for one in surplus([*layers, image], now, 100, 2)] == ["c"], "what has no size goes by its age"
    assert [one.key for one in surplus([*layers, image], now, 40, 20)] == ["i"]
    assert surplus([KeptImage("x", MIB, now - 1)], now, 0, 0, fresh_s=5) == []


def test_entries_that_go_are_gone_for_the_next_server(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.put("a", Leaving.FILES, "c1", MIB)
    (found,) = layers.all()
    assert (found.key, found.value, found.bytes) == ("a", "c1", MIB)
    layers.drop(found.key, found.kind)
    assert Layers(tmp_path).all() == []
