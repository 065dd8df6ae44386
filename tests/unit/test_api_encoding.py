"""Page tokens come back as they went out, and nothing else is taken for one; metadata filters survive encoding."""

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_model_sandbox import sandbox
from warren.api.encoding import parse_metadata_filter, parse_sandbox_token, sandbox_token
from warren.model.errors import BadRequest, InvalidPageToken


@given(st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1)))
def test_a_page_token_names_its_row(at: datetime) -> None:
    row = sandbox(datetime(2100, 1, 1, tzinfo=UTC))
    row = type(row)(**{**{name: getattr(row, name) for name in row.__slots__}, "started_at": at.replace(tzinfo=UTC)})
    assert parse_sandbox_token(sandbox_token(row)) == (row.started_at, row.id)


@given(st.text())
def test_any_other_text_is_an_invalid_token(text: str) -> None:
    with pytest.raises(InvalidPageToken):
        parse_sandbox_token(text)


PLAIN = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1).filter(lambda text: "%" not in text)


@given(st.dictionaries(PLAIN, PLAIN, max_size=4))
def test_filters_encoded_once_or_twice_are_read_alike(pairs: dict[str, str]) -> None:
    once = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in pairs.items())
    twice = urlencode({quote(key): quote(value) for key, value in pairs.items()})
    assert parse_metadata_filter(once) == pairs
    assert parse_metadata_filter(twice) == pairs


def test_a_filter_without_value_is_refused() -> None:
    with pytest.raises(BadRequest):
        parse_metadata_filter("key")
