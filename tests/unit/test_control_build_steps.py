"""What steps do, and the chain of keys that names what they leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.control.build_steps import Copy, MakeFolder, Planned, Run, Stage, plan
from warren.model.build import Step, StepKind
from warren.model.errors import BuildFailed

START = Stage("user", "/home/user")
HASH = "a" * 64
RUN, COPY, ENV, WORKDIR, USER = StepKind


def planned(*steps: Step, stage: Stage = START, key: str = "base", forced: bool = False) -> list[Planned]:
    return plan(steps, stage, key, forced=forced)


def keys(*steps: Step) -> list[str]:
    return [step.key for step in planned(*steps)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A-${A}-${B}", "1-1-"),
        ("${B:-word}${A:-word}", "word1"),
        ("${A:+set}${B:+set}", "set"),
        (r"\$A $", "$A $"),
        ("$PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("$HOME", "/home/user"),
        ("${A", "${A"),
        ("$(id) `id`", "$(id) `id`"),
    ],
)
def test_variables_are_expanded_as_in_a_dockerfile(text: str, value: str) -> None:
    assert Stage("user", "/", {"A": "1"}).expanded(text) == value


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_no_text_breaks_the_expansion(text: str, envs: dict[str, str]) -> None:
    stage = Stage("user", "/", envs)
    assert stage.path(text).startswith("/")
    assert isinstance(stage.expanded(text), str)


@pytest.mark.parametrize(
    ("path", "found"),
    [("a", "/w/a"), ("a/", "/w/a/"), ("/a/../b", "/b"), ("..", "/"), ("../../..", "/"), ("~/x", "/home/user/x"),
     ("//a", "/a"), (".", "/w"), ("./", "/w/")],
)  # fmt: skip
def test_paths_begin_at_the_working_directory(path: str, found: str) -> None:
    assert Stage("user", "/w").path(path) == found


def test_steps_carry_user_directory_and_variables_on() -> None:
    run = planned(
        Step(ENV, ("A", "1", "B", "$A")),
        Step(ENV, ("B", "$A")),
        Step(WORKDIR, ("work",)),
        Step(WORKDIR, ("$B",)),
        Step(USER, ("root",)),
        Step(COPY, ("src", "there", "", "755"), HASH),
        Step(RUN, ("make $A",)),
        Step(RUN, ("id", "user")),
    )
    assert run[-1].after == Stage("root", "/home/user/work/1", {"A": "1", "B": "1"})
    assert run[0].after.envs["B"] == "", "values of one step do not see each other"
    assert [step.action for step in run if step.action] == [
        MakeFolder("/home/user/work", "user"),
        MakeFolder("/home/user/work/1", "user"),
        Copy("src", "/home/user/work/1/there", "root", "755", HASH),
        Run("make $A", "root"),
        Run("id", "user"),
    ]


def test_a_key_depends_on_all_that_came_before() -> None:
    one, two = Step(RUN, ("one",)), Step(RUN, ("two",))
    assert keys(one, two)[0] == keys(one)[0]
    assert keys(one, two)[1] != keys(two, one)[1]
    assert keys(one, two)[1] not in keys(two, two)
    assert planned(one, key="other")[0].key != planned(one)[0].key


@pytest.mark.parametrize(
    "before",
    [Step(ENV, ("A", "1")), Step(USER, ("root",)), Step(WORKDIR, ("/w",))],
    ids=["variable", "user", "directory"],
)
def test_the_key_of_a_command_depends_on_where_it_runs(before: Step) -> None:
    command = Step(RUN, ("make",))
    assert keys(before, command)[-1] != keys(command)[-1]


def test_what_changes_no_files_leaves_the_key_as_it_is() -> None:
    command, late = Step(RUN, ("make",)), Step(ENV, ("A", "1"))
    assert keys(command, late)[-1] == keys(command)[-1]


def test_the_key_of_a_copy_depends_on_the_files() -> None:
    assert keys(Step(COPY, ("a", "b"), HASH)) != keys(Step(COPY, ("a", "b"), "b" * 64))


def test_force_holds_for_all_that_follows() -> None:
    run = planned(Step(RUN, ("a",)), Step(RUN, ("b",), force=True), Step(RUN, ("c",)))
    assert [step.forced for step in run] == [False, True, True]
    assert planned(Step(RUN, ("a",)), forced=True)[0].forced


@pytest.mark.parametrize(
    "step",
    [
        Step(RUN, ()),
        Step(RUN, (" ",)),
        Step(RUN, ("a", "b", "c")),
        Step(RUN, ("a\0b",)),
        Step(COPY, ("a", "b")),
        Step(COPY, ("a",), HASH),
        Step(COPY, ("a", "b", "", "0x7"), HASH),
        Step(COPY, ("a", "b", "", "77777"), HASH),
        Step(ENV, ("A",)),
        Step(ENV, ("A=B", "c")),
        Step(WORKDIR, ()),
        Step(USER, ("",)),
        Step(USER, ("1000:",)),
        Step(USER, (":1000",)),
        Step(USER, ("a:b:c",)),
    ],
)
def test_a_step_that_cannot_be_read_is_named(step: Step) -> None:
    with pytest.raises(BuildFailed, match="cannot read") as caught:
        planned(Step(RUN, ("a",)), step)
    assert caught.value.step == "2"
