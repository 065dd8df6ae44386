"""Whatever a `template.json` holds: a template that is safe to store and to look for, or one known error."""

import re
from pathlib import Path

import pytest

from tests.fuzz.corpus import fuzzed, seeds
from warren.control import built_in
from warren.control.templates import TemplateFiles
from warren.model.errors import BadRequest

pytestmark = pytest.mark.threat("B8")


@fuzzed("template-description", usual=150)
def test_the_description_of_a_template(data: bytes) -> None:
    try:
        template = built_in.parse(data)
    except BadRequest as error:
        assert error.message.startswith("cannot ")
        return
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", template.digest)
    assert min(template.resources.cpu_count, template.resources.memory_mb, template.resources.disk_mb) > 0
    for text in (*template.names, template.default_user, template.default_workdir):
        text.encode()
        assert "\0" not in text
    assert template.created_at.utcoffset() is not None


def test_a_description_that_is_none_hides_no_other(tmp_path: Path) -> None:
    cache, home = tmp_path / "cache", tmp_path / "home"
    for number, text in enumerate(seeds("template-description")):
        folder = cache / f"base-{number}"
        folder.mkdir(parents=True)
        (folder / "template.json").write_bytes(text)
        (folder / "rootfs.erofs").write_bytes(b"image")
    (found,) = TemplateFiles(home).take_in(cache)
    assert [path.relative_to(home).parts for path in home.rglob("rootfs.erofs")] == [
        (found.digest.removeprefix("sha256:"), "rootfs.erofs")
    ]
