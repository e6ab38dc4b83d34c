"""The machine's own NICs, shaped by the agent as its unit and systemd/nodeagent-nic.conf let it."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.model.pod import OWN_TIER
from tests.live.nic_loads import ended
from tests.live.running import executed, quota_cores, unique, until
from tests.vm.inside.guest import ONLY_HERE, output

SHIPPED = Path(__file__).resolve().parents[3] / "systemd/nodeagent-nic.conf"
pytestmark = [
    *ONLY_HERE,
    pytest.mark.skipif(not Path("/sys/class/net/nic1").exists(), reason="needs a machine with two NICs"),
]
CONFIG = Path("/etc/nodeagent/nodeagent.toml")
DROP_INS = Path("/run/systemd/system/nodeagent.service.d")
RUN_DIR = Path("/run/nodeagent")
NICS = ("nic0", "nic1")
ENFORCE = '[agent]\nenforce = ["cpu", "nic"]\n'
ROLES = """
[[nics]]
match = "nic0"
role = "online"
link_bps = 100_000_000
[[nics]]
match = "nic1"
role = "bulk"
link_bps = 100_000_000
"""
BATCH, MID = "4e51:30", "4e51:20"


def shown(name: str, unit: str = "nodeagent") -> str:
    return output("systemctl", "show", "--property", name, "--value", unit)


def said(cursor: str) -> list[str]:
    """The lines of the unit's journal since then."""
    words = ("--unit=nodeagent", "--output=cat", "--no-pager", f"--after-cursor={cursor}")
    return output("journalctl", *words).splitlines()


def now() -> str:
    """The end of the journal."""
    found = re.search(r"-- cursor: (.*)", output("journalctl", "--lines=0", "--show-cursor"))
    assert found is not None
    return found[1]


def qdiscs() -> list[str]:
    return [output("tc", "qdisc", "show", "dev", nic) for nic in NICS]


def shaped(nic: str) -> bool:
    return MID in output("tc", "class", "show", "dev", nic)


def packets(nic: str, classid: str) -> int:
    """What a class has sent; 0 while there is none."""
    text = output("tc", "-s", "class", "show", "dev", nic)
    found = re.search(rf"class htb {classid} .*?Sent \d+ bytes (\d+) pkt", text, re.DOTALL)
    return int(found[1]) if found else 0


def default_route() -> None:
    output("ip", "route", "replace", "default", "via", "10.77.0.2", "dev", "nic0")


@pytest.fixture(scope="module", autouse=True)
def _routed() -> Iterator[None]:
    """The namespace at the other ends of the wires is the way to everywhere."""
    default_route()
    yield
    output("ip", "route", "delete", "default")


def drop_in(name: str, text: str) -> None:
    DROP_INS.mkdir(parents=True, exist_ok=True)
    (DROP_INS / f"{name}.conf").write_text(text)


@contextlib.contextmanager
def agent(config: str, *, permitted: bool = True, ebpf: bool = False) -> Iterator[str]:
    """The unit, started with this file; the journal's end before that. All is as before on leaving."""
    before = qdiscs()
    text = SHIPPED.read_text()
    if permitted:
        drop_in("nic", re.sub(r"(?m)^#(?=[A-Z][A-Za-z]+=)", "", text) if ebpf else text)
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(config)
    try:
        output("systemctl", "daemon-reload")
        begin = now()
        output("systemctl", "start", "nodeagent")
        yield begin
        output("systemctl", "stop", "nodeagent")
        assert (shown("Result"), qdiscs()) == ("success", before)
        assert output("nft", "list", "tables") == ""
    except BaseException:
        subprocess.run(["systemctl", "stop", "nodeagent"], check=False)
        subprocess.run(["nodeagent", "restore"], check=False)
        raise
    finally:
        subprocess.run(["systemctl", "reset-failed", "nodeagent"], capture_output=True, check=False)
        CONFIG.unlink()
        shutil.rmtree(DROP_INS, ignore_errors=True)
        output("systemctl", "daemon-reload")


def sends(qos: str, number: int) -> contextlib.AbstractContextManager[object]:
    """A pod of this class that sends by a NIC."""
    return executed(RUN_DIR, qos, unique(f"{qos}{number}"), f"exec ping -q -i 0.1 10.77.{number}.2")


def until_shaped(begin: str, *nics: str) -> None:
    """AssertionError with what the agent says when it lets one of them be."""
    until(lambda: all(map(shaped, nics)) or "nic.let_be" in "".join(said(begin)), f"trees on {nics}")
    assert all(map(shaped, nics)), "\n".join(said(begin))


def until_sent(nic: str, classid: str) -> None:
    begin = packets(nic, classid)
    until(lambda: packets(nic, classid) > begin + 5, f"packets in {classid} of {nic}")


def test_each_of_two_nics_is_shaped_in_its_role_and_given_back() -> None:
    with agent(ENFORCE + ROLES) as begin:
        until_shaped(begin, *NICS)
        with sends("batch", 0), sends("mid", 1):
            until_sent("nic0", BATCH)
            until_sent("nic1", MID)
        trees = [output("tc", "class", "show", "dev", nic) for nic in NICS]
        assert all("4e51:1 root rate 95Mbit ceil 95Mbit" in tree for tree in trees)
        assert ["rate 76Mbit" in re.findall(rf"{MID} .*", tree)[0] for tree in trees] == [False, True]


def test_the_nic_with_the_default_route_is_found_without_a_rule_and_followed() -> None:
    with agent(ENFORCE) as begin:
        until_shaped(begin, "nic0")
        assert not shaped("nic1")
        output("ip", "link", "set", "nic0", "down")
        output("ip", "link", "set", "nic0", "up")
        default_route()
        with sends("batch", 0):
            until_sent("nic0", BATCH)


def test_a_pod_with_a_network_of_its_own_is_known_by_its_address_within_the_sandbox() -> None:
    peer = f"na-{os.getpid()}"
    steps = (
        f"ip link add e0 type veth peer name {peer} netns 1",
        "ip addr add 10.99.1.7/24 dev e0",
        "ip link set e0 up",
        f"nsenter --net=/proc/1/ns/net ip link set {peer} up",
        "exec sleep 3600",
    )
    with agent(ENFORCE + ROLES) as begin:
        until_shaped(begin, *NICS)
        pod = f"exec unshare --net sh -c '{' && '.join(steps)}'"
        with executed(RUN_DIR, "batch", unique("own"), pod):
            until(lambda: "10.99.1.7" in output("nft", "list", "ruleset"), "its address is told by")
        until(lambda: "10.99.1.7" not in output("nft", "list", "ruleset"), "and no longer")


def tell_no_speed(nic: str) -> None:
    """What virtio does unless it is told one; ethtool(8) takes no -1 (struct ethtool_cmd)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as via:
        command = array.array("B", struct.pack("=I", 0x1).ljust(44, b"\0"))
        request = struct.pack("16sP", nic.encode(), command.buffer_info()[0]).ljust(40, b"\0")
        fcntl.ioctl(via, 0x8946, request)
        struct.pack_into("=I", command, 0, 0x2)
        struct.pack_into("=H", command, 12, 0xFFFF)
        struct.pack_into("=H", command, 28, 0xFFFF)
        fcntl.ioctl(via, 0x8946, request)
    assert "Speed: Unknown!" in output("ethtool", nic)


def test_a_nic_that_tells_no_speed_is_let_be_and_that_is_said() -> None:
    tell_no_speed("nic0")
    try:
        with agent(ENFORCE) as begin:
            reason = "its speed is not known: set link_bps in [[nics]]"
            until(lambda: any(reason in line for line in said(begin)), "the reason")
            assert not shaped("nic0")
    finally:
        output("ethtool", "-s", "nic0", "speed", "10000")


def test_without_the_drop_in_one_line_for_each_nic_says_why_and_all_else_runs() -> None:
    with agent(ENFORCE + ROLES, permitted=False) as begin:
        with executed(RUN_DIR, "batch", unique("busy"), "sleep 600"):
            until(lambda: quota_cores(OWN_TIER) is not None, "a quota on Batch's tier")
            until(lambda: "nic.classifier" in "".join(said(begin)), "a word about NICs")
        lines = [line for line in said(begin) if "nic." in line and "level" in line]
        about = [line for line in lines if any(f'"{nic}"' in line for nic in NICS)]
        assert len(about) == len(NICS), lines
        assert all(line.count("the agent lacks CAP_NET_ADMIN") == 1 for line in about)
        assert not any("nic.failed" in line or "tick.skipped" in line for line in said(begin))


@pytest.fixture
def fq() -> Iterator[None]:
    """Somebody's fq at the root of nic0."""
    output("tc", "qdisc", "add", "dev", "nic0", "root", "handle", "77:", "fq", "flow_limit", "77")
    yield
    output("tc", "qdisc", "delete", "dev", "nic0", "root")


def test_with_the_lines_for_ebpf_somebodys_fq_stays_and_paces_what_we_mark(fq: None) -> None:
    before = output("tc", "qdisc", "show", "dev", "nic0")
    with agent(ENFORCE + ROLES, ebpf=True) as begin:
        until(lambda: "nodeagent-edt" in output("tc", "filter", "show", "dev", "nic0", "egress"), "EDT")
        assert before in output("tc", "qdisc", "show", "dev", "nic0")
        until_shaped(begin, "nic1")


def anew() -> None:
    """The kernel's own default at both roots, as it is now."""
    for nic in NICS:
        output("tc", "qdisc", "add", "dev", nic, "root", "pfifo")
        output("tc", "qdisc", "delete", "dev", nic, "root")


def test_fq_as_the_kernels_own_default_is_in_nobodys_way() -> None:
    name = Path("/proc/sys/net/core/default_qdisc")
    default = name.read_text()
    name.write_text("fq")
    try:
        anew()
        assert all(text.startswith("qdisc fq 0: root") for text in qdiscs())
        with agent(ENFORCE + ROLES) as begin:
            until_shaped(begin, *NICS)
    finally:
        name.write_text(default)
        anew()


def test_after_kill_9_traffic_stays_shaped_until_the_restart_takes_it_over(tmp_path: Path) -> None:
    with agent(ENFORCE + ROLES) as begin:
        until_shaped(begin, *NICS)
        with sends("batch", 0), (tmp_path / "monitor").open("w") as out:
            until_sent("nic0", BATCH)
            with ended(subprocess.Popen(["tc", "monitor"], stdout=out, text=True)):
                before = int(shown("NRestarts"))
                os.kill(int(shown("MainPID")), signal.SIGKILL)
                until(lambda: int(shown("NRestarts")) == before + 1, "the restart")
                until(
                    lambda: sum("nic.shaped" in line for line in said(begin)) == 2 * len(NICS), "taken over"
                )
                until_sent("nic0", BATCH)
        told = (tmp_path / "monitor").read_text().splitlines()
        assert not [line for line in told if "deleted" in line or ("qdisc" in line and "4e51:" in line)]


def test_a_unit_that_is_not_started_again_after_kill_9_gives_all_back() -> None:
    before = qdiscs()
    drop_in("once", "[Service]\nRestart=no\n")
    with agent(ENFORCE + ROLES) as begin:
        until_shaped(begin, *NICS)
        os.kill(int(shown("MainPID")), signal.SIGKILL)
        until(lambda: qdiscs() == before, "nodeagent-restore.service")
        until(lambda: shown("ActiveState", "nodeagent-restore") == "inactive", "its end")
        assert shown("Result", "nodeagent-restore") == "success"
        output("systemctl", "start", "nodeagent")
