"""Our trees on real devices, in a network namespace of each test."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl.tcmsg.common import tick_in_usec

from nodeagent.kernel.nic.htb_steps import RTM_GETQDISC, RTM_GETTCLASS
from nodeagent.kernel.nic.rtnetlink import NLM_F_DUMP, Rtnetlink, tcmsg
from nodeagent.kernel.nic.tc import Trees
from nodeagent.model.errors import Gone, Refused
from nodeagent.model.nic import HtbClass, Tree, classid
from nodeagent.model.pod import Qos
from tests.live.own_netns import ip, own_netns
from tests.live.running import until

pytestmark = pytest.mark.live
RATES_BPS = (64e3, 1e6, 1e7, 123_456_789.0, 1e9, 2.5e9, 1e10, 2.5e10, 34.359e9, 34.36e9, 1e11, 4e11)
SHARES = ((Qos.LS, 0.6), (Qos.MID, 0.3), (Qos.BATCH, 0.05))
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000  # linux/if_tun.h
UDP_BYTES = 14 + 20 + 8


def tree(top_bps: float, batch_ceil_bps: float | None = None, queue_bytes: int = 2_000_000) -> Tree:
    """Bursts of 1 ms, at least 16 KiB."""

    def burst(bps: float) -> int:
        return max(16384, int(bps / 8000))

    def one(qos: Qos, share: float) -> HtbClass:
        ceil = batch_ceil_bps or top_bps if qos is Qos.BATCH else top_bps
        return HtbClass(
            qos=qos,
            rate_bps=top_bps * share,
            ceil_bps=ceil,
            prio=[each for each, _ in SHARES].index(qos),
            burst_bytes=burst(top_bps * share),
            cburst_bytes=burst(ceil),
            quantum_bytes=min(200_000, max(1514, int(top_bps * share / 8000))),
            queue_bytes=queue_bytes if qos is Qos.BATCH else 0,
        )

    return Tree(top_bps, burst(top_bps), tuple(one(qos, share) for qos, share in SHARES))


@pytest.fixture
def device() -> Iterator[int]:
    """One end of a veth, up, with an address; what is sent to 10.9.0.2 leaves by it."""
    with own_netns():
        ip(
            "link add nic0 type veth peer name far0",
            "link set nic0 addrgenmode none up",
            "link set far0 addrgenmode none up",
            "address add 10.9.0.1/24 dev nic0",
            "neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev nic0",
        )
        yield socket.if_nametoindex("nic0")


@pytest.fixture
def trees(device: int) -> Iterator[Trees]:
    with Trees() as trees:
        yield trees


def tc(command: str) -> str:
    done = subprocess.run(["tc", *command.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tc {command}: {done.stderr}"
    return done.stdout


def shown() -> dict[str, str]:
    """Classes and qdiscs of nic0 as tc prints them, by handle; no counters."""
    lines = f"{tc('class show dev nic0')}{tc('qdisc show dev nic0')}".splitlines()
    return {line.split()[2]: " ".join(line.split()) for line in lines if line.strip()}


def raw(index: int) -> list[bytes]:
    """All that the kernel says of the qdiscs and classes of the device, counters too."""
    rtnetlink = Rtnetlink()
    try:
        qdiscs = rtnetlink.ask(RTM_GETQDISC, NLM_F_DUMP, tcmsg(0))
        classes = rtnetlink.ask(RTM_GETTCLASS, NLM_F_DUMP, tcmsg(index))
    finally:
        rtnetlink.close()
    return [message for message in (*qdiscs, *classes) if message[4:8] == index.to_bytes(4, "little")]


def by_pyroute2(index: int) -> dict[int, tuple[dict[str, Any], int, int, dict[str, Any], dict[str, Any]]]:
    """(parameters, rate, ceil, basic counters, queue counters) of each class, by handle."""
    found = {}
    with IPRoute() as route:
        for message in route.get_classes(index=index):
            options, stats = message.get_attr("TCA_OPTIONS"), message.get_attr("TCA_STATS2")
            parms = options.get_attr("TCA_HTB_PARMS")
            rate = options.get_attr("TCA_HTB_RATE64") or parms["rate"]
            ceil = options.get_attr("TCA_HTB_CEIL64") or parms["ceil"]
            basic, queue = stats.get_attr("TCA_STATS_BASIC"), stats.get_attr("TCA_STATS_QUEUE")
            found[message["handle"]] = dict(parms), rate, ceil, dict(basic), dict(queue)
    return found


def send(qos: Qos | None, count: int, size: int = 1000) -> None:
    """UDP by nic0, marked as our classifiers mark it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        if qos is not None:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, classid(qos))
        for _ in range(count):
            udp.sendto(bytes(size), ("10.9.0.2", 9))


@pytest.mark.parametrize("top_bps", RATES_BPS)
def test_the_kernel_has_what_is_wanted_and_the_second_time_nothing_is_written(
    trees: Trees, device: int, top_bps: float
) -> None:
    wanted = tree(top_bps)
    assert trees.set(device, wanted) >= 6
    assert trees.set(device, wanted) == 0
    held = by_pyroute2(device)
    assert set(held) == {0x4E510001, *(classid(qos) for qos in Qos)}
    for each in wanted.classes:
        parms, rate, ceil, _, _ = held[classid(each.qos)]
        assert (rate, ceil) == (round(each.rate_bps / 8), round(each.ceil_bps / 8))
        assert (parms["prio"], parms["quantum"]) == (each.prio, each.quantum_bytes)
        for ticks, size, speed in (("buffer", each.burst_bytes, rate), ("cbuffer", each.cburst_bytes, ceil)):
            assert 0 <= parms[ticks] - size / speed * 1e6 * tick_in_usec < 1
    parms, rate, ceil, _, _ = held[0x4E510001]
    assert rate == ceil == round(top_bps / 8)
    seen = trees.read(device)
    assert seen is not None
    assert [each.qos for each in seen] == [each.qos for each in wanted.classes]
    for now, then in zip(seen, wanted.classes, strict=True):
        assert abs(now.rate_bps - then.rate_bps) <= 4
        assert abs(now.ceil_bps - then.ceil_bps) <= 4


def test_from_any_rate_to_any_other_each_class_is_changed_once(trees: Trees, device: int) -> None:
    trees.set(device, tree(RATES_BPS[0]))
    for top_bps in (*RATES_BPS[1:], *RATES_BPS[::-1][1:]):
        assert [step.what.split()[0] for step in trees.steps(device, tree(top_bps))] == ["change"] * 4
        assert trees.set(device, tree(top_bps)) == 4
        assert trees.set(device, tree(top_bps)) == 0


def test_a_new_ceiling_is_one_write(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9))
    before = shown()
    assert trees.set(device, tree(1e9, batch_ceil_bps=1e8)) == 1
    assert "ceil 100Mbit" in shown()["4e51:30"]
    assert {**shown(), "4e51:30": ""} == {**before, "4e51:30": ""}


def test_a_limit_bounds_the_leaf_and_is_changed_in_place(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9, queue_bytes=1_000_000))
    assert "bfifo" in shown()["4e54:"] and "parent 4e51:30 limit 1000000b" in shown()["4e54:"]
    (step,) = trees.steps(device, tree(1e9, queue_bytes=1_500_000))
    assert step.what == "change bfifo 4e54:"
    assert trees.set(device, tree(1e9, queue_bytes=1_500_000)) == 1
    assert "limit 1500000b" in shown()["4e54:"]
    trees.set(device, tree(1e9, queue_bytes=0))
    assert "bfifo" not in shown().get("4e54:", "")
    assert trees.set(device, tree(1e9, queue_bytes=0)) == 0


def test_leaves_without_a_limit_are_fq_codel_where_the_kernel_has_it_else_fifos(
    trees: Trees, device: int
) -> None:
    had = subprocess.run(
        ["tc", "qdisc", "add", "dev", "far0", "root", "fq_codel"], capture_output=True, check=False
    )
    trees.set(device, tree(1e9))
    leaves = {handle: line.split()[1] for handle, line in shown().items() if "parent 4e51:" in line}
    queues = {handle: kind for handle, kind in leaves.items() if handle.endswith(":")}
    kind = "fq_codel" if had.returncode == 0 else "pfifo"
    assert queues == {"4e52:": kind, "4e53:": kind, "4e54:": "bfifo"}


def test_on_a_device_whose_own_queue_has_no_room_nothing_is_lost(trees: Trees) -> None:
    """Not a veth: there the kernel mends a txqueuelen of 0 (qdisc_create, for IFF_NO_QUEUE)."""
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no tun devices here")
    with open("/dev/net/tun", "r+b", buffering=0) as tap:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI))
        ip(
            "link set tap0 txqueuelen 0 addrgenmode none up",
            "address add 10.8.0.1/24 dev tap0",
            "neighbour add 10.8.0.2 lladdr 02:00:00:00:00:02 dev tap0",
        )
        trees.set(socket.if_nametoindex("tap0"), tree(1e9))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"to somebody", ("10.8.0.2", 9))
        seen = trees.read(socket.if_nametoindex("tap0"))
    assert seen is not None
    assert [(each.packets, each.drops) for each in seen if each.qos is Qos.LS] == [(1, 0)]


def test_a_device_that_was_never_up_gets_its_tree(trees: Trees, device: int) -> None:
    ip("link add down0 type veth peer name down1")
    down = socket.if_nametoindex("down0")
    assert trees.read(down) is None
    assert trees.remove(down) is False
    assert trees.set(down, tree(1e9)) >= 6
    assert trees.set(down, tree(1e9)) == 0
    assert trees.ours() == (down,)
    assert trees.remove(down)


def test_removal_restores_what_the_kernel_had(trees: Trees, device: int) -> None:
    before = raw(device)
    trees.set(device, tree(1e9))
    assert trees.ours() == (device,)
    assert trees.remove(device) is True
    assert raw(device) == before
    assert trees.read(device) is None
    assert trees.ours() == ()
    assert trees.remove(device) is False


@pytest.mark.parametrize(
    ("root", "named"),
    [
        ("handle 7: tbf rate 10mbit burst 32k latency 20ms", "tbf 7:"),
        ("handle 1: htb default 30", "htb 1:"),
        ("handle 4e51: tbf rate 10mbit burst 32k latency 20ms", "tbf 4e51:"),
        ("handle 4e52: htb default 10", "htb 4e52:"),
    ],
)
def test_somebody_elses_root_is_refused_and_stays_as_it_was(
    trees: Trees, device: int, root: str, named: str
) -> None:
    tc(f"qdisc add dev nic0 root {root}")
    if " htb " in root:
        handle = named.split()[1]
        tc(f"class add dev nic0 parent {handle} classid {handle}30 htb rate 5mbit")
    tc("qdisc add dev nic0 clsact")
    before = raw(device)
    with pytest.raises(Refused, match=f"nic0: its root qdisc is {named}, set by somebody"):
        trees.set(device, tree(1e9))
    assert trees.remove(device) is False
    assert trees.read(device) is None
    assert trees.ours() == ()
    assert raw(device) == before


def test_a_root_that_comes_between_look_and_write_is_not_touched(trees: Trees, device: int) -> None:
    planned = trees.steps(device, tree(1e9))
    tc("qdisc add dev nic0 root handle 7: tbf rate 9mbit burst 9k latency 9ms")
    before = raw(device)
    with pytest.raises(Refused, match="nic0: add htb"):
        trees.take(device, planned[0])
    for step in planned[1:]:
        with contextlib.suppress(Refused):
            trees.take(device, step)
    assert raw(device) == before


def test_clsact_of_somebody_outlives_our_tree(trees: Trees, device: int) -> None:
    tc("qdisc add dev nic0 clsact")
    before = raw(device)
    trees.set(device, tree(1e9))
    assert trees.remove(device)
    assert raw(device) == before


BROKEN = {
    "nothing": (),
    "another default": ("qdisc add dev nic0 root handle 4e51: htb default 20",),
    "a class of another parent": (
        "qdisc add dev nic0 root handle 4e51: htb default 10",
        "class add dev nic0 parent 4e51: classid 4e51:10 htb rate 1mbit",
        "class add dev nic0 parent 4e51:10 classid 4e51:1 htb rate 1mbit",
        "class add dev nic0 parent 4e51:1 classid 4e51:30 htb rate 1mbit",
    ),
    "somebody's classes": (
        "qdisc add dev nic0 root handle 4e51: htb default 10",
        "class add dev nic0 parent 4e51: classid 4e51:1 htb rate 1mbit",
        "class add dev nic0 parent 4e51:1 classid 4e51:30 htb rate 1mbit",
        "class add dev nic0 parent 4e51:30 classid 4e51:31 htb rate 1mbit",
        "class add dev nic0 parent 4e51:31 classid 4e51:32 htb rate 1mbit",
        "class add dev nic0 parent 4e51: classid 4e51:99 htb rate 1mbit",
        "qdisc add dev nic0 parent 4e51:32 handle 5: pfifo limit 5",
    ),
    "somebody's leaf": (
        "qdisc add dev nic0 root handle 4e51: htb default 10",
        "class add dev nic0 parent 4e51: classid 4e51:1 htb rate 1mbit",
        "class add dev nic0 parent 4e51:1 classid 4e51:30 htb rate 1mbit",
        "qdisc add dev nic0 parent 4e51:30 handle 4e54: tbf rate 1mbit burst 9k latency 9ms",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_whatever_it_begins_with_and_wherever_it_is_killed_the_next_time_finishes(
    trees: Trees, device: int, broken: str
) -> None:
    wanted = tree(1e9)
    trees.set(device, wanted)
    expected = shown()
    done = None
    for survived in range(40):
        trees.remove(device)
        for command in BROKEN[broken]:
            tc(command)
        done = _killed_after(survived, device, wanted)
        trees.set(device, wanted)
        assert shown() == expected
        assert trees.set(device, wanted) == 0
        if done:
            break
    assert done, "it was never left to finish"
    assert survived >= 5


def _killed_after(writes: int, device: int, wanted: Tree) -> bool:
    """Set by a process that kills itself before its write number `writes`; True when it had no more to do."""
    child = os.fork()
    if child == 0:
        try:
            with Trees() as trees:
                planned = trees.steps(device, wanted)
                for step in planned[:writes]:
                    trees.take(device, step)
                if writes < len(planned):
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def test_what_somebody_changed_is_repaired_by_the_least_writes(trees: Trees, device: int) -> None:
    wanted = tree(1e9)
    trees.set(device, wanted)
    expected = shown()
    for commands, writes in (
        (["class change dev nic0 parent 4e51:1 classid 4e51:10 htb rate 5mbit ceil 6mbit"], 1),
        (["class change dev nic0 parent 4e51: classid 4e51:1 htb rate 5mbit"], 1),
        (["qdisc change dev nic0 parent 4e51:30 handle 4e54: bfifo limit 5000"], 1),
        (["qdisc del dev nic0 parent 4e51:30 handle 4e54:"], 1),
        (["qdisc del dev nic0 parent 4e51:30 handle 4e54:", "class del dev nic0 classid 4e51:30"], 2),
        (["class add dev nic0 parent 4e51:1 classid 4e51:77 htb rate 5mbit"], 1),
        (["qdisc replace dev nic0 parent 4e51:30 handle 9: pfifo limit 3"], 2),
    ):
        for command in commands:
            tc(command)
        assert trees.set(device, wanted) == writes, commands
        assert shown() == expected
        assert trees.set(device, wanted) == 0


def test_somebodys_class_in_use_is_told_after_all_else_is_done(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9))
    tc("class add dev nic0 parent 4e51:1 classid 4e51:77 htb rate 5mbit")
    tc("filter add dev nic0 parent 4e51: protocol ip u32 match ip dst 10.9.0.9 flowid 4e51:77")
    with pytest.raises(Refused, match="nic0: delete class 4e51:77"):
        trees.set(device, tree(1e9, batch_ceil_bps=1e8))
    assert "ceil 100Mbit" in shown()["4e51:30"]
    assert "4e51:77" in shown()


def test_a_device_that_vanished_is_gone(trees: Trees, device: int) -> None:
    planned = trees.steps(device, tree(1e9))
    ip("link delete nic0")
    with pytest.raises(Gone, match=f"interface {device}"):
        trees.read(device)
    with pytest.raises(Gone):
        trees.set(device, tree(1e9))
    with pytest.raises(Gone):
        trees.remove(device)
    for step in planned:
        with pytest.raises(Gone):
            trees.take(device, step)


def test_without_cap_net_admin_it_is_refused_with_what_to_do(device: int) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            Trees().set(device, tree(1e9))
        except Refused as error:
            os.write(writing, f"{error}; {error.hint}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read().startswith("nic0: add htb: Operation not permitted; run as root")
    os.waitpid(child, 0)


def test_packets_are_counted_in_their_class(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9))
    send(Qos.MID, 30)
    send(Qos.BATCH, 50, size=100)
    send(None, 20)
    until(lambda: _packets(trees, device) == {Qos.LS: 20, Qos.MID: 30, Qos.BATCH: 50}, "all sent")
    seen = {each.qos: each for each in trees.read(device) or ()}
    assert seen[Qos.MID].bytes == 30 * (1000 + UDP_BYTES)
    assert seen[Qos.BATCH].bytes == 50 * (100 + UDP_BYTES)
    assert seen[Qos.LS].bytes == 20 * (1000 + UDP_BYTES)


def _packets(trees: Trees, index: int) -> dict[Qos, int]:
    return {each.qos: each.packets for each in trees.read(index) or ()}


def test_counters_survive_a_change_and_a_new_reader(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9))
    send(Qos.BATCH, 50)
    until(lambda: _packets(trees, device)[Qos.BATCH] == 50, "all sent")
    trees.set(device, tree(2e9, batch_ceil_bps=1e9))
    with Trees() as others:
        assert _packets(others, device)[Qos.BATCH] == 50


def test_what_waits_and_what_is_dropped_is_told_as_pyroute2_reads_it(trees: Trees, device: int) -> None:
    trees.set(device, tree(64e3, queue_bytes=20_000))
    send(Qos.BATCH, 100)
    until(lambda: _same_counters(trees, device), "two readings of the same moment")
    batch = (trees.read(device) or ())[-1]
    assert batch.drops > 0 and batch.overlimits > 0
    assert 0 < batch.backlog_bytes <= 20_000


def _same_counters(trees: Trees, index: int) -> bool:
    ours, theirs = trees.read(index), by_pyroute2(index)
    assert ours is not None
    return [(c.bytes, c.packets, c.drops, c.overlimits, c.backlog_bytes) for c in ours] == [
        (basic["bytes"], basic["packets"], queue["drops"], queue["overlimits"], queue["backlog"])
        for _, _, _, basic, queue in (theirs[classid(each.qos)] for each in ours)
    ]


def test_no_packet_is_lost_by_500_changes_and_nothing_leaks(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9))
    descriptors, classes = len(os.listdir("/proc/self/fd")), set(shown())
    for number in range(500):
        assert trees.set(device, tree(1e9, batch_ceil_bps=(5e8, 1e8)[number % 2])) == 1
        send(Qos.BATCH, 1)
    until(lambda: _packets(trees, device)[Qos.BATCH] == 500, "all sent")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert set(shown()) == classes


def test_looking_and_a_steady_state_tell_nobody_anything(trees: Trees, device: int) -> None:
    trees.set(device, tree(1e9))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as listener:
        listener.bind((0, 1 << 3))  # RTMGRP_TC
        listener.setblocking(False)
        assert trees.set(device, tree(1e9)) == 0
        trees.read(device)
        trees.ours()
        with pytest.raises(BlockingIOError):
            listener.recv(65536)
        assert trees.set(device, tree(1e9, batch_ceil_bps=1e8)) == 1
        assert listener.recv(65536)


def test_an_ifb_and_many_devices_are_like_any_other(trees: Trees, device: int) -> None:
    made = subprocess.run(["ip", "link", "add", "ifb9", "type", "ifb"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no ifb in this kernel")
    ip(*(f"link add v{number} type veth peer name w{number}" for number in range(150)), "link set ifb9 up")
    ifb = socket.if_nametoindex("ifb9")
    last = socket.if_nametoindex("v149")
    for index in (device, ifb, last):
        assert trees.set(index, tree(1e9)) >= 6
        assert trees.set(index, tree(1e9)) == 0
    assert trees.ours() == tuple(sorted((device, ifb, last)))
    assert msgspec.to_builtins(trees.read(ifb)) == msgspec.to_builtins(trees.read(device))
