"""What an operator sees of a server: one id from the client to the guest, traces, the log, the audit log, `top`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2b import Sandbox

from tests.e2e.cleanliness import nothing_left
from tests.e2e.local_server import LocalServer, warren_command
from tests.e2e.trace_receiver import TraceReceiver
from tests.e2e.waiting import until
from warren.audit.folder import AuditFolder
from warren.audit.reading import records, verify
from warren.gateway.certificates import ensure_certificates
from warren.guest import envelope

REQUEST = "an-id-of-mine"
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"X-Request-Id": REQUEST, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Warren-Runtime": "crun"}
DEADLINE_S = 60
DOMAIN = "team.localhost"
UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "warren.service"
BY_DOMAIN_ALONE = """
import sys
from e2b import Sandbox

with Sandbox.create(timeout=60, api_key=sys.argv[1], domain=sys.argv[2]) as sandbox:
    print(sandbox.commands.run("echo by domain").stdout, sandbox.get_host(8000))
"""


@pytest.fixture(scope="module")
def traces() -> Iterator[TraceReceiver]:
    with TraceReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, traces: TraceReceiver) -> Iterator[LocalServer]:
    """As the systemd unit starts it; it writes a log file, sends traces and has somebody else's certificate."""
    folder = tmp_path_factory.mktemp("observed")
    given = ensure_certificates(folder / "given", DOMAIN)
    local = LocalServer(
        folder,
        command=with_the_unit_s_capabilities(folder / "warren"),
        log_file=str(folder / "json.log"),
        otlp_endpoint=traces.endpoint,
        pool_sandboxes=0,
        domain=DOMAIN,
        tls_cert=str(given.certificate),
        tls_key=str(given.key),
    )
    with nothing_left(local), local:
        yield local


def with_the_unit_s_capabilities(script: Path) -> Path:
    found = re.search(r"^CapabilityBoundingSet=~(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found
    dropped = ",".join(f"-{name.removeprefix('CAP_').lower()}" for name in found[1].split())
    script.write_text(f'#!/bin/sh\nexec setpriv --bounding-set={dropped} {warren_command()} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture(scope="module")
def sandbox(observed: LocalServer) -> Iterator[Sandbox]:
    made = Sandbox.create(timeout=600, api_headers=HEADERS, **observed.options)
    try:
        run_true(observed, made)
        yield made
    finally:
        made.kill()


def run_true(server: LocalServer, sandbox: Sandbox) -> None:
    """As the client does it, which takes no headers for a command."""
    headers = {
        **HEADERS,
        "Content-Type": "application/connect+json",
        "X-Access-Token": sandbox._envd_access_token or "",
        "E2b-Sandbox-Id": sandbox.sandbox_id,
        "E2b-Sandbox-Port": "49983",
    }
    body = envelope.encode({"process": {"cmd": "/bin/true"}})
    url = f"{server.gateway_url}/process.Process/Start"
    assert httpx.post(url, content=body, headers=headers, timeout=DEADLINE_S, trust_env=False).status_code == 200


def lines(server: LocalServer, *command: str) -> list[dict[str, Any]]:
    done = server.run(*command, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_id_goes_from_the_client_to_the_guest(observed: LocalServer, sandbox: Sandbox) -> None:
    def of_guest() -> set[str]:
        entries = lines(observed, "sandbox", "logs", sandbox.sandbox_id)
        named = {entry["message"] for entry in entries if entry["fields"].get("request") == REQUEST}
        return named if "process ended" in named else set()

    assert {"settings applied", "process started"} <= until(
        of_guest, DEADLINE_S, "the guest's entries name the request"
    )
    made = [row for row in lines(observed, "audit", "list", "--request", REQUEST) if row["kind"] == "sandbox.create"]
    assert [row["subject"] for row in made] == [f"sandbox:{sandbox.sandbox_id}"]


def test_a_create_and_a_command_are_traced_below_the_client_s_own_span(traces: TraceReceiver, sandbox: Sandbox) -> None:
    steps = {"admit", "slot", "rules", "layer", "mounts", "runtime", "guest", "init", "store"}

    def complete() -> bool:
        return {"POST /v2/sandboxes", "relay http", *steps} <= {span.name for span in tuple(traces.spans)}

    until(complete, DEADLINE_S, "the spans have come")
    (create,) = (span for span in traces.named("POST /v2/sandboxes"))
    assert create.trace_id.hex() == TRACE
    for name in steps:
        (span,) = traces.named(name)
        assert (span.trace_id, span.parent_span_id) == (create.trace_id, create.span_id), name
        assert create.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano, name
    assert TRACE in {span.trace_id.hex() for span in traces.named("relay http")}
    assert sandbox.get_info().sandbox_id == sandbox.sandbox_id


def test_the_server_s_log_is_read_by_its_command(observed: LocalServer, sandbox: Sandbox) -> None:
    assert any(entry["event"] == "serving" for entry in lines(observed, "logs"))
    assert "hunter2" not in observed.run("logs").stdout


def test_top_shows_the_sandbox(observed: LocalServer, sandbox: Sandbox) -> None:
    def measured() -> list[dict[str, Any]]:
        rows = json.loads(observed.run("top", "--json").stdout)
        return [row for row in rows if row["memUsed"] is not None]

    (row,) = until(measured, DEADLINE_S, "a first sample")
    assert (row["sandboxID"], row["runtime"]) == (sandbox.sandbox_id, "crun")
    assert sandbox.sandbox_id in observed.run("top", "--once").stdout


@pytest.mark.usefixtures("sandbox")
def test_the_steps_of_a_create_are_measured(observed: LocalServer) -> None:
    text = httpx.get(f"{observed.api_url}/metrics", timeout=DEADLINE_S, trust_env=False).text
    for step in ("admit", "slot", "rules", "layer", "mounts", "runtime", "guest", "init", "store"):
        assert f'warren_create_step_seconds_count{{runtime="crun",step="{step}"}}' in text


def test_what_a_sandbox_was_not_let_reach_is_counted(observed: LocalServer, sandbox: Sandbox) -> None:
    """A private address: the packet is dropped on this machine, and would find nobody there either."""
    sandbox.commands.run("timeout 2 bash -c 'echo > /dev/tcp/10.255.255.1/9' || true")

    def told() -> bool:
        rows = lines(observed, "audit", "list", "--kind", "egress.denied", "--subject", f"sandbox:{sandbox.sandbox_id}")
        return any(row["details"]["packets"] > 0 for row in rows)

    until(told, DEADLINE_S, "the audit log tells of it")
    text = httpx.get(f"{observed.api_url}/metrics", timeout=DEADLINE_S, trust_env=False).text
    found = re.search(r"^warren_egress_denied_packets_total (\S+)", text, re.MULTILINE)
    assert found and float(found[1]) > 0


def test_the_domain_alone_is_enough_with_a_given_certificate(observed: LocalServer, tmp_path: Path) -> None:
    """In a process of its own: the client reads SSL_CERT_FILE once. gVisor, under the unit's capabilities."""
    domain = f"{DOMAIN}:{observed.tls_port}"
    done = subprocess.run(
        [sys.executable, "-c", BY_DOMAIN_ALONE, observed.api_key, domain],
        env={"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(observed.folder / "given" / "ca.pem")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, host = done.stdout.split("\n", 1)
    assert said == "by domain" and host.strip().startswith("8000-") and host.strip().endswith(domain)


def test_the_audit_log_is_whole_while_it_is_written_and_after_a_crash(observed: LocalServer, sandbox: Sandbox) -> None:
    assert observed.run("audit", "verify").returncode == 0
    observed.kill()
    observed.start()
    verdict = verify(AuditFolder(observed.state / "audit"))
    assert verdict.faults == []
    kinds = [body["kind"] for body in records(AuditFolder(observed.state / "audit"), lambda _: True)]
    assert kinds.count("server.start") == 2 and "server.stop" not in kinds
    assert sandbox.is_running()
