"""The parts of the OCI engine that only compute: slots, rules, bundles, records, what /proc/meminfo says."""

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from warren.contracts.engine import SandboxSpec
from warren.engine.oci import bundle, confine, firewall, seccomp
from warren.engine.oci.box import new_record
from warren.engine.oci.cgroup import CgroupUsage
from warren.engine.oci.meminfo import FILE_BYTES, meminfo
from warren.engine.oci.process import ProcessId
from warren.engine.oci.record import Record
from warren.engine.oci.slot import SlotPlan
from warren.model.errors import BadRequest
from warren.model.policy import ALL_TRAFFIC, CLOSED_BY_DEFAULT, EgressPolicy
from warren.model.sandbox import Resources
from warren.model.template import TemplateImage

MIB = 1024 * 1024
PLAN = SlotPlan(IPv4Network("198.18.0.0/24"), "warren0", Path("/run/warren/warren0/netns"), 1000)
SLOT = PLAN.slot(3)
SPEC = SandboxSpec(
    id="i" + "a" * 20,
    runtime="crun",
    image=TemplateImage("sha256:0", "/images/base/rootfs.erofs"),
    hostname="box",
    resources=Resources(cpu_count=2, memory_mb=1024, disk_mb=2048, pids=1024),
)
PATHS = bundle.Paths(
    Path("/b/root"),
    Path("/b/guest"),
    Path("/layers"),
    "/warren/x",
    Path("/b/boot"),
    Path("/b/mem"),
    Path("/proc/7/fd/3"),
)


def test_a_slot_is_derived_from_its_index() -> None:
    assert str(SLOT.address) == "198.18.0.5"
    assert SLOT.mac == "02:57:c6:12:00:05"
    assert (SLOT.host_interface, SLOT.netns.name) == ("warren0.3", "3")


def test_no_two_slots_share_anything_and_none_is_the_bridge() -> None:
    slots = [PLAN.slot(index) for index in PLAN.indexes()]
    assert len(slots) == 253
    for name in ("address", "mac", "host_interface", "netns"):
        assert len({getattr(slot, name) for slot in slots}) == len(slots)
    assert PLAN.gateway not in {slot.address for slot in slots}
    assert all(slot.address in PLAN.network and slot.address != PLAN.network[-1] for slot in slots)


def test_the_longest_interface_name_fits_into_the_kernels() -> None:
    plan = replace(PLAN, network=IPv4Network("10.0.0.0/8"), bridge="ninechars", max_slots=65_536)
    assert max(len(plan.slot(index).host_interface) for index in (0, plan.count - 1)) <= 15


@pytest.mark.parametrize("name", ["tencharsxx", "a.b", "a/b", "a b", 'a"b', ""])
def test_a_bridge_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="bridge"):
        replace(PLAN, bridge=name)


def test_rules_close_every_block_that_is_closed_by_default() -> None:
    text = firewall.ruleset("warren0", PLAN.network)
    elements = text.split("elements = { ", 1)[1].split(" }", 1)[0].split(", ")
    closed = [IPv4Network(element) for element in elements]
    assert all(any(block.subnet_of(one) for one in closed) for block in CLOSED_BY_DEFAULT)
    assert text.index("@closed goto refuse") < text.index("@allowed accept") < text.index("@denied goto refuse")


@pytest.mark.parametrize(("table", "count"), [("262144\n", 4096), ("65536\n", 1024), ("9000000\n", 4096), (None, 4096)])
def test_a_sandbox_has_a_part_of_the_machine_s_connections(
    table: str | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = tmp_path / "max"
    if table:
        size.write_text(table)
    monkeypatch.setattr(firewall, "TABLE_SIZE", size)
    rules = firewall.ruleset("warren0", PLAN.network)
    assert f"ct count over {count} }}" in rules
    assert f"limit rate over {count // 32}/second burst {2 * count} packets" in rules


def test_an_egress_change_is_one_transaction_of_set_elements() -> None:
    one, net = IPv4Network("203.0.113.7/32"), IPv4Network("203.0.113.0/24")
    old, new = EgressPolicy(deny=(ALL_TRAFFIC, net)), EgressPolicy(allow=(one, net, one))
    assert firewall.egress_change("w", IPv4Address("198.18.0.5"), old, new).splitlines() == [
        "delete element inet warren_w denied { 198.18.0.5 . 0.0.0.0-255.255.255.255 }",
        "add element inet warren_w allowed { 198.18.0.5 . 203.0.113.0/24 }",
    ]
    assert firewall.egress_change("w", IPv4Address("198.18.0.5"), EgressPolicy(), EgressPolicy()) == ""


def test_a_slot_is_silenced_without_regard_to_whether_it_could_speak() -> None:
    lines = firewall.slot_elements("delete", "w", [SLOT]).splitlines()
    assert [line.split()[0] for line in lines] == ["add", "add", "delete", "delete"]
    assert all("02:57:c6:12:00:05" in line and "198.18.0.5" in line for line in lines)


def test_both_bundles_bound_the_capabilities_and_hand_none_down() -> None:
    for made in (_runsc(), _crun()):
        capabilities = made["process"]["capabilities"]
        assert set(capabilities) == {"bounding", "effective", "permitted"}
        assert all(names == list(bundle.CAPABILITIES) for names in capabilities.values())
        assert not {"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_PTRACE"} & set(
            bundle.CAPABILITIES
        )


def test_no_host_path_is_mounted_writable() -> None:
    for made in (_runsc(), _crun()):
        binds = [mount for mount in made["mounts"] if mount["type"] == "bind"]
        assert binds
        assert all("ro" in mount["options"] for mount in binds)


def test_every_tmpfs_has_a_size_or_is_read_only() -> None:
    for made in (_runsc(), _crun()):
        for mount in made["mounts"]:
            if mount["type"] == "tmpfs":
                assert "ro" in mount["options"] or any(option.startswith("size=") for option in mount["options"])


def test_crun_gets_a_user_namespace_of_the_slots_range() -> None:
    linux = _crun()["linux"]
    assert {"type": "user", "path": "/proc/7/fd/3"} in linux["namespaces"]
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 1_196_608, "size": 65_536}]


def test_all_namespaces_are_its_own() -> None:
    for made in (_runsc(), _crun()):
        kinds = {entry["type"]: entry.get("path") for entry in made["linux"]["namespaces"]}
        assert kinds.items() >= {"pid": None, "mount": None, "ipc": None, "uts": None, "cgroup": None}.items()
        assert kinds["network"] == "/run/warren/warren0/netns/3"


def test_gvisor_is_told_the_image_and_the_size_of_its_layer() -> None:
    annotations = _runsc()["annotations"]
    assert annotations["dev.gvisor.spec.rootfs.source"] == SPEC.image.path
    assert annotations["dev.gvisor.spec.rootfs.options"] == "size=2048m"


def test_memory_has_no_swap_on_top() -> None:
    for made in (_runsc(), _crun(own_cgroup=False)):
        assert made["linux"]["resources"]["memory"] == {"limit": 1024 * MIB, "swap": 1024 * MIB}
        assert made["linux"]["resources"]["cpu"] == {"quota": 200_000, "period": 100_000, "shares": 2048}
    assert "resources" not in _crun()["linux"]


def test_bundles_are_json() -> None:
    assert json.loads(json.dumps([_runsc(), _crun(), _crun(own_cgroup=False)]))


def test_v1_settings_say_the_same_as_the_bundle() -> None:
    values = {(setting.controller, setting.file): setting.value for setting in confine.settings(SPEC.resources)}
    assert values["memory", "memory.limit_in_bytes"] == str(1024 * MIB)
    assert values["cpu", "cpu.cfs_quota_us"] == "200000"
    assert values["cpu", "cpu.shares"] == "2048"
    assert values["pids", "pids.max"] == "1024"
    assert ("devices", "devices.deny") in values


def test_confining_writes_the_limits_and_moves_only_the_thread(tmp_path: Path) -> None:
    confine.confine_this_thread(tmp_path, "/warren/x", SPEC.resources)
    assert (tmp_path / "memory/warren/x/memory.limit_in_bytes").read_text() == str(1024 * MIB)
    assert (tmp_path / "pids/warren/x/tasks").read_text() == "0"
    assert not list(tmp_path.rglob("cgroup.procs"))


def test_no_call_is_both_allowed_and_refused() -> None:
    groups = [seccomp.FILES, seccomp.MEMORY, seccomp.PROCESSES, seccomp.WAITING, seccomp.TALKING]
    allowed = " ".join(groups).split()
    refused = seccomp.REFUSED.split()
    assert len(set(allowed)) == len(allowed)
    assert not set(allowed) & set(refused)
    assert not {"clone", "clone3", "socket", "personality"} & {*allowed, *refused}


def test_unknown_calls_look_like_those_of_an_older_kernel() -> None:
    made = seccomp.profile()
    assert (made["defaultAction"], made["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert len(made["architectures"]) == 1  # type: ignore[arg-type]


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    egress = EgressPolicy(allow=(IPv4Network("203.0.113.0/24"),), deny=(ALL_TRAFFIC,))
    record = new_record(replace(SPEC, egress=egress), SLOT, ("1.1.1.1",)).running_as(ProcessId(7, 8))
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    assert record.process == ProcessId(7, 8)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"version": 99}', '{"version": 1}', "\0"])
def test_a_broken_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "placement.json").write_text(text)
    assert Record.read(tmp_path) is None


def test_meminfo_adds_up_and_never_changes_its_length() -> None:
    for usage in (CgroupUsage(0, 0, 0), CgroupUsage(0, 300 * MIB, 200 * MIB), CgroupUsage(0, 2000 * MIB, 3000 * MIB)):
        page = meminfo(1024 * MIB, usage)
        assert len(page) == FILE_BYTES
        rows = {line.split(":")[0]: int(line.split()[1]) for line in page.decode().splitlines() if ":" in line}
        assert rows["MemTotal"] == 1024 * 1024
        assert 0 <= rows["MemFree"] <= rows["MemAvailable"] <= rows["MemTotal"]
        assert rows["SwapTotal"] == 0


def _runsc() -> dict:  # type: ignore[type-arg]
    return json.loads(json.dumps(bundle.runsc_bundle(SPEC, SLOT, PATHS)))


def _crun(own_cgroup: bool = True) -> dict:  # type: ignore[type-arg]
    return json.loads(
        json.dumps(bundle.crun_bundle(SPEC, SLOT, PATHS, uid_base=1_196_608, open_files=20_000, own_cgroup=own_cgroup))
    )
