"""The client's git helper, against repositories inside the sandbox."""

import pytest
from e2b import AsyncSandbox, CommandExitException, GitAuthException, Sandbox

from tests.e2e.waiting import until

ORIGIN = "/home/user/origin.git"
WORK = "/home/user/work"

CLOSED_DOOR = """
import http.server
class Door(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8418), Door).serve_forever()
"""


@pytest.fixture(scope="module")
def repository(box: Sandbox) -> Sandbox:
    """A bare origin, and a working copy with one pushed commit on main."""
    box.git.configure_user("Test Person", "person@example.org")
    box.git.init(ORIGIN, bare=True, initial_branch="main")
    box.git.init(WORK, initial_branch="main")
    box.files.write(f"{WORK}/README", "hello\n")
    box.git.add(WORK)
    box.git.commit(WORK, "first")
    box.git.remote_add(WORK, "origin", f"file://{ORIGIN}")
    box.git.push(WORK, remote="origin", branch="main")
    return box


@pytest.mark.covers("G01")
def test_commits_are_pushed_and_pulled(repository: Sandbox) -> None:
    git = repository.git
    assert git.remote_get(WORK, "origin") == f"file://{ORIGIN}"
    git.clone(f"file://{ORIGIN}", "/home/user/other", branch="main", depth=1)
    repository.files.write("/home/user/other/added", "by another\n")
    git.add("/home/user/other", files=["added"])
    git.commit("/home/user/other", "second", author_name="Somebody", author_email="else@example.org")
    git.push("/home/user/other")
    git.pull(WORK, remote="origin", branch="main")
    assert repository.files.read(f"{WORK}/added") == "by another\n"
    assert "Somebody" in repository.commands.run("git log -1 --format=%an", cwd=WORK).stdout


@pytest.mark.covers("G01")
def test_status_tells_staged_changed_and_untracked_apart(repository: Sandbox) -> None:
    git = repository.git
    assert git.status(WORK).is_clean
    repository.files.write(f"{WORK}/README", "changed\n")
    repository.files.write(f"{WORK}/staged", "x")
    repository.files.write(f"{WORK}/untracked", "x")
    git.add(WORK, files=["staged"])
    status = git.status(WORK)
    assert status.current_branch == "main"
    assert (status.has_staged, status.has_untracked, status.total_count) == (True, True, 3)
    git.restore(WORK, ["README"])
    assert repository.files.read(f"{WORK}/README") == "hello\n"
    git.reset(WORK, mode="hard")
    repository.files.remove(f"{WORK}/untracked")
    assert git.status(WORK).is_clean


@pytest.mark.covers("G01")
def test_branches_come_and_go(repository: Sandbox) -> None:
    git = repository.git
    git.create_branch(WORK, "feature")
    branches = git.branches(WORK)
    assert (set(branches.branches), branches.current_branch) == ({"main", "feature"}, "feature")
    git.checkout_branch(WORK, "main")
    git.delete_branch(WORK, "feature", force=True)
    assert git.branches(WORK).branches == ["main"]


@pytest.mark.covers("G01")
def test_settings_are_kept(repository: Sandbox) -> None:
    git = repository.git
    git.set_config("warren.colour", "brown", scope="local", path=WORK)
    assert git.get_config("warren.colour", scope="local", path=WORK) == "brown"
    assert git.get_config("user.email") == "person@example.org"
    assert git.get_config("warren.missing") is None


@pytest.mark.covers("G01")
def test_a_repository_is_cloned_from_the_git_daemon(repository: Sandbox) -> None:
    repository.commands.run(
        "git daemon --listen=127.0.0.1 --export-all --base-path=/home/user /home/user", background=True, timeout=0
    )
    until(lambda: repository.commands.run("ss -tln | grep -c :9418 || true").stdout.strip() == "1", 20, "it listens")
    repository.git.clone("git://127.0.0.1/origin.git", "/home/user/from-daemon")
    assert repository.files.exists("/home/user/from-daemon/README")


@pytest.mark.covers("G01", "C07")
def test_a_closed_repository_raises_an_authentication_error(repository: Sandbox) -> None:
    repository.files.write("/tmp/door.py", CLOSED_DOOR)
    repository.commands.run("python3 /tmp/door.py", background=True, timeout=0)
    until(lambda: repository.commands.run("ss -tln | grep -c :8418 || true").stdout.strip() == "1", 20, "it listens")
    with pytest.raises(GitAuthException):
        repository.git.clone("http://127.0.0.1:8418/x.git", "/tmp/nope", username="who", password="wrong")


@pytest.mark.covers("G01")
def test_credentials_are_stored_only_when_dangerously_asked(repository: Sandbox) -> None:
    repository.git.dangerously_authenticate("someone", "token-123", host="git.example.org")
    assert "token-123" in repository.commands.run("cat ~/.git-credentials").stdout
    repository.files.remove(".git-credentials")


@pytest.mark.covers("G01")
def test_a_failing_git_command_raises(repository: Sandbox) -> None:
    with pytest.raises(CommandExitException):
        repository.git.checkout_branch(WORK, "no-such-branch")


@pytest.mark.anyio
@pytest.mark.covers("G01")
async def test_the_async_client_uses_git_too(repository: Sandbox) -> None:
    sandbox = await AsyncSandbox.connect(repository.sandbox_id)
    await sandbox.git.clone(f"file://{ORIGIN}", "/home/user/async-clone")
    assert (await sandbox.git.status("/home/user/async-clone")).is_clean
    assert (await sandbox.git.branches("/home/user/async-clone")).current_branch == "main"
