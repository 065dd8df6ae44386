import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warren.control.sealing import CannotOpen, Keyring, load_keyring
from warren.model.errors import BadRequest
from warren.model.secret import Secret

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = Secret("sec_" + "0" * 20, "project", "name", 1, NOW, NOW)


def keyring(*keys: str) -> Keyring:
    return Keyring.parse("\n".join(keys), "the test")


def test_a_value_comes_back_only_with_its_key_and_in_its_place() -> None:
    ring = keyring(secrets.token_hex(32))
    value = ring.seal(SECRET, "naïve \0 value")
    assert ring.open(value) == "naïve \0 value"
    assert "naïve" not in value.text
    assert ring.seal(SECRET, "naïve \0 value").text != value.text
    for moved in (
        replace(value, project_id="other"),
        replace(value, secret_id="sec_" + "1" * 20),
        replace(value, version=2),
        replace(value, text=value.text[:-8] + "AAAAAAA="),
        replace(value, text="?"),
        replace(value, text=""),
        replace(value, key_id="unknown"),
    ):
        with pytest.raises(CannotOpen):
            ring.open(moved)
    with pytest.raises(CannotOpen):
        keyring(secrets.token_hex(32)).open(value)


def test_a_new_key_above_the_old_one_opens_and_seals_anew() -> None:
    old, new = secrets.token_hex(32), secrets.token_hex(32)
    value = keyring(old).seal(SECRET, "value")
    renewed = keyring(new, old).renewed(value)
    assert renewed.key_id == keyring(new).current != value.key_id
    assert keyring(new).open(renewed) == "value"
    with pytest.raises(CannotOpen):
        keyring(old).open(renewed)


@pytest.mark.parametrize("text", ["", " \n", "00", "zz" * 32, "00" * 31, "00" * 33, "00" * 32 + "\n00"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="cannot use"):
        keyring(text)


def test_without_a_key_one_is_made_once_for_root_alone(tmp_path: Path) -> None:
    made = tmp_path / "secrets.key"
    ring = load_keyring("", "", made)
    assert made.stat().st_mode & 0o777 == 0o600
    assert load_keyring("", "", made) == ring
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.key"]


def test_a_given_key_is_used_and_none_is_made(tmp_path: Path) -> None:
    file, text = tmp_path / "given", secrets.token_hex(32)
    file.write_text(text)
    file.chmod(0o600)
    assert load_keyring("", str(file), tmp_path / "made") == load_keyring(text, "", tmp_path / "made")
    assert not (tmp_path / "made").exists()
    file.chmod(0o640)
    with pytest.raises(BadRequest, match="0600"):
        load_keyring("", str(file), tmp_path / "made")
    with pytest.raises(BadRequest, match="cannot read"):
        load_keyring("", str(tmp_path / "missing"), tmp_path / "made")
