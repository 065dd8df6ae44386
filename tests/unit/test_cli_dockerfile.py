"""What a Dockerfile asks for, as steps of a build."""

import pytest

from warren.cli.dockerfile import parse_dockerfile
from warren.model.errors import BadRequest


def steps(text: str, **arguments: str) -> list[tuple[str, ...]]:
    return [(step.kind, *step.args) for step in parse_dockerfile(text, arguments).steps]


BEGIN = [("USER", "root"), ("WORKDIR", "/")]
END = [("USER", "user"), ("WORKDIR", "/home/user")]


def test_a_build_begins_as_root_and_ends_as_the_user() -> None:
    parsed = parse_dockerfile("# comment\n\nfrom debian:12 AS base\nRUN true\n", {})
    assert parsed.image == "debian:12"
    assert [(step.kind, *step.args) for step in parsed.steps] == [*BEGIN, ("RUN", "true"), *END]
    assert [step.line for step in parsed.steps] == [3, 3, 4, 4, 4]
    assert parsed.start_command is None


def test_what_the_file_says_of_user_and_folder_stays() -> None:
    assert steps("FROM x\nUSER app\nWORKDIR /srv") == [*BEGIN, ("USER", "app"), ("WORKDIR", "/srv")]


def test_commands_of_several_lines_are_one() -> None:
    text = 'FROM x\nRUN apt-get update && \\\n  # why\n\n  apt-get install -y curl \\\n  && true\nRUN ["echo", "a b"]\n'
    found = steps(text)[2:4]
    assert found == [("RUN", "apt-get update &&   apt-get install -y curl   && true"), ("RUN", "echo 'a b'")]


def test_files_are_copied_from_the_context() -> None:
    text = 'FROM x\nCOPY --chown=app:app --chmod=755 a "b c" /dest/\nADD ["one", "/two"]\n'
    parsed = parse_dockerfile(text, {})
    assert [(step.source, step.args) for step in parsed.steps[2:5]] == [
        ("a", ("a", "/dest/", "app:app", "0755")),
        ("b c", ("b c", "/dest/", "app:app", "0755")),
        ("one", ("one", "/two", "", "")),
    ]


def test_variables_that_are_known_are_put_in() -> None:
    text = (
        'ARG V=12\nARG MISSING\nFROM debian:${V}\nARG NAME=app\nENV HOME_OF=/srv/$NAME MODE="a b" EMPTY=\n'
        "ENV OLD one two\nWORKDIR $HOME_OF/${SUB:-sub}/${NAME:+named}\nCOPY $UNKNOWN /x\nRUN echo $NAME\n"
    )
    parsed = parse_dockerfile(text, {"NAME": "other"})
    assert parsed.image == "debian:12"
    assert [(step.kind, *step.args) for step in parsed.steps[2:-1]] == [
        ("ENV", "NAME", "other"),
        ("ENV", "HOME_OF", "/srv/other", "MODE", "a b", "EMPTY", ""),
        ("ENV", "OLD", "one two"),
        ("WORKDIR", "/srv/other/sub/named"),
        ("COPY", "$UNKNOWN", "/x", "", ""),
        ("RUN", "echo $NAME"),
    ]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("CMD python app.py", "python app.py"),
        ('CMD ["python", "my app.py"]', "python 'my app.py'"),
        ('ENTRYPOINT ["run"]\nCMD ["--port", "80"]', "run --port 80"),
        ("ENTRYPOINT run it\nCMD ignored", "run it"),
        ("CMD a\nCMD b", "b"),
    ],
)
def test_the_start_command(text: str, command: str) -> None:
    assert parse_dockerfile(f"FROM x\n{text}\n", {}).start_command == command


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no FROM"),
        ("RUN x", "line 1: RUN before FROM"),
        ("FROM x\nFROM y", "line 2: a second FROM"),
        ("FROM", "takes the name"),
        ("FROM x\nRUN --mount=type=cache true", "--mount of RUN is not supported"),
        ("FROM x\nCOPY --from=build a b", "--from of COPY is not supported"),
        ("FROM x\nADD https://host.example/file /", "files of this machine only"),
        ("FROM x\nCOPY a", "sources and a destination"),
        ("FROM x\nCOPY a b c", "ends in /"),
        ("FROM x\nCOPY --chmod=u+x a b", "no octal mode"),
        ("FROM x\nRUN <<EOF\nx\nEOF", "line 2: here-documents"),
        ('FROM x\nSHELL ["sh"]', "SHELL is not supported"),
        ("FROM x\n\n\nUSER a b", "line 4: USER takes one word"),
        ("FROM x\nENV A='", "line 2: no closing quotation"),
        ("# escape=`\nFROM x", "escape character"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        parse_dockerfile(text, {})
