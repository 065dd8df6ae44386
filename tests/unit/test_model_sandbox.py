"""The table of transitions, and deadlines that connects only ever extend."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from warren.model.sandbox import TRANSITIONS, Desired, Resources, Sandbox, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sandbox(expires_at: datetime) -> Sandbox:
    return Sandbox(
        id="i" + "a" * 20,
        project_id="p",
        template_id="t",
        alias=None,
        runtime="runsc",
        resources=Resources(),
        state=State.RUNNING,
        desired=Desired.RUNNING,
        created_at=NOW,
        started_at=NOW,
        expires_at=expires_at,
        timeout_s=1,
    )


def test_every_state_has_a_row_and_every_live_state_leads_to_the_end() -> None:
    assert set(TRANSITIONS) == set(State)
    for state in State:
        assert (State.GONE in TRANSITIONS[state]) == state.is_live


@given(st.lists(st.sampled_from(State), max_size=8))
def test_no_walk_along_the_table_leaves_the_end_or_comes_back_to_life(wishes: list[State]) -> None:
    state, ended = State.CREATING, False
    for wish in wishes:
        if wish in TRANSITIONS[state]:
            state = wish
        ended = ended or state in (State.KILLING, State.GONE)
        assert not (ended and state.is_visible)


@given(st.integers(-1000, 1000), st.integers(0, 10_000))
def test_extending_never_moves_a_deadline_nearer(left: int, wanted: int) -> None:
    before = NOW + timedelta(seconds=left)
    after = sandbox(before).extended_to(NOW, wanted)
    assert after >= before
    assert after >= NOW + timedelta(seconds=wanted)
