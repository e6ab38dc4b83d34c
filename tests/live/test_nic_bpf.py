"""eBPF at the NIC: packets of cgroups and pods, an agent that is killed, and what somebody else has there."""

from __future__ import annotations

import gc
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from nodeagent.kernel.nic.bpf.attach import CLASSIFY, EDT, Filter, filters
from nodeagent.kernel.nic.bpf.marks import NAME, BpfMarks
from nodeagent.kernel.nic.bpf.pacing import Edt
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.model.errors import Gone, Refused, Unsupported
from nodeagent.model.nic import Classifier, ClassSeen, HtbClass, Marks, Tree, classid
from nodeagent.model.pod import Qos
from tests.live.nic_bpf_place import Place, cgroups, descriptors, htb, level, placed, shell

pytestmark = pytest.mark.live
MINOR = {qos: classid(qos) & 0xFFFF for qos in (Qos.LS, Qos.MID, Qos.BATCH)}
NOBODY = Marks(Classifier.BPF, "")


@pytest.fixture
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


@pytest.fixture
def marks(place: Place) -> Iterator[BpfMarks]:
    marks = BpfMarks()
    try:
        marks.set(NOBODY, [place.nic])
    except Unsupported as error:
        marks.close()
        pytest.skip(str(error))
    yield marks
    marks.close()


@pytest.fixture
def edt(place: Place) -> Iterator[Edt]:
    edt = Edt()
    yield edt
    edt.close()


POD = Marks(Classifier.BPF, "", addresses=(("10.78.0.2", Qos.BATCH), ("fd78::2", Qos.MID)))


def tree(batch_bps: float, mid_bps: float = math.inf, queue_bytes: int = 0) -> Tree:
    ceilings = ((Qos.LS, 1e9), (Qos.MID, mid_bps), (Qos.BATCH, batch_bps))
    return Tree(1e9, 0, tuple(HtbClass(qos, 0.0, bps, 0, 0, 0, 0, queue_bytes) for qos, bps in ceilings))


def seen(edt: Edt, place: Place) -> dict[Qos, ClassSeen]:
    return {each.qos: each for each in edt.read(place.nic) or ()}


def ours(place: Place) -> dict[str, Filter]:
    with closing(Rtnetlink()) as link:
        return {each.step: each for each in filters(link, place.nic) if each.step in (CLASSIFY, EDT)}


def sent(place: Place, qos: Qos, *arguments: object, **options: object) -> int:
    """How many packets more a class has after sending."""
    before = place.packets()[MINOR[qos]]
    place.send(*arguments, **options)  # type: ignore[arg-type]
    return place.packets()[MINOR[qos]] - before


def test_host_processes_are_told_by_their_cgroup_and_the_deepest_wins(place: Place, marks: BpfMarks) -> None:
    htb()
    with cgroups(["batch", "batch/low", "batch/mid", "other"]) as (_, batch, low, mid, other):
        marks.set(
            Marks(
                Classifier.BPF,
                "",
                cgroups=(
                    (level(batch), batch.stat().st_ino, Qos.BATCH),
                    (level(mid), mid.stat().st_ino, Qos.MID),
                ),
            ),
            [place.nic],
        )
        for to in ("10.77.0.2", "fd77::2"):
            assert sent(place, Qos.BATCH, 20, to, cgroup=batch) == 20
            assert sent(place, Qos.BATCH, 20, to, cgroup=low) == 20
            assert sent(place, Qos.MID, 20, to, cgroup=mid) == 20
            assert sent(place, Qos.LS, 20, to, cgroup=other) >= 20
        raised = classid(Qos.LS)
        assert sent(place, Qos.BATCH, 20, cgroup=batch, priority=raised) == 20
        marks.set(NOBODY, [place.nic])
        assert sent(place, Qos.LS, 20, cgroup=batch) >= 20


def test_routed_pods_are_told_by_their_addresses(place: Place, marks: BpfMarks) -> None:
    htb()
    assert sent(place, Qos.LS, 20, pod=True) >= 20
    assert marks.set(POD, [place.nic]) == 2
    assert sent(place, Qos.BATCH, 20, pod=True) == 20
    assert sent(place, Qos.MID, 20, "fd77::2", pod=True) == 20
    assert sent(place, Qos.BATCH, 20, pod=True, priority=classid(Qos.LS)) == 20
    assert marks.set(POD, [place.nic]) == 0
    assert marks.set(NOBODY, [place.nic]) == 2
    assert sent(place, Qos.LS, 20, pod=True) >= 20


@pytest.mark.parametrize("reorder", ["on", "off"])
def test_a_packet_with_a_vlan_tag_beside_it_or_within_is_told(
    place: Place, marks: BpfMarks, reorder: str
) -> None:
    try:
        shell(f"ip link add link nic0 name nic0.7 type vlan id 7 reorder_hdr {reorder}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no VLAN devices: {error.stderr.strip()}")
    htb()
    shell("ip addr add 10.79.0.1/24 dev nic0.7; ip addr add fd79::1/64 dev nic0.7 nodad")
    shell("ip link set nic0.7 up; ip neigh add 10.79.0.2 lladdr 02:00:00:00:00:02 dev nic0.7")
    shell("ip neigh add fd79::2 lladdr 02:00:00:00:00:02 dev nic0.7")
    marks.set(POD, [place.nic])
    assert sent(place, Qos.BATCH, 20, "10.79.0.2", pod=True) == 20
    assert sent(place, Qos.MID, 20, "fd79::2", pod=True) == 20


def test_what_goes_into_a_tunnel_is_told_at_the_tunnel(place: Place, marks: BpfMarks) -> None:
    made: list[str] = []
    for kind in ("vxlan id 7 dstport 4789", "ipip local 10.77.0.1"):
        name = f"tun-{kind[:2]}"
        try:
            shell(f"ip link add {name} type {kind} remote 10.77.0.2 dev nic0; ip link set {name} up")
        except subprocess.CalledProcessError:
            continue
        shell(f"ip addr add 10.8{len(made)}.0.1/24 dev {name}")
        made.append(name)
    if not made:
        pytest.skip("no tunnel devices in this kernel")
    htb()
    for number, name in enumerate(made):
        tunnel = int(shell(f"ip -o link show {name}").partition(":")[0])
        if name == "tun-vx":
            shell(f"ip neigh add 10.8{number}.0.2 lladdr 02:00:00:00:00:09 dev {name}")
        assert sent(place, Qos.BATCH, 20, f"10.8{number}.0.2", pod=True) == 0
        marks.set(POD, [place.nic, tunnel])
        assert sent(place, Qos.BATCH, 20, f"10.8{number}.0.2", pod=True) == 20, name
        marks.set(NOBODY, [place.nic])


CHILD = """
import sys, time
from nodeagent.kernel.nic.bpf.marks import BpfMarks
from nodeagent.kernel.nic.bpf.pacing import Edt
from tests.live.test_nic_bpf import POD, tree
marks, edt = BpfMarks(), Edt()
print(marks.set(POD, [int(sys.argv[1])]), edt.set(int(sys.argv[1]), tree(2e7)), flush=True)
time.sleep(1000)
"""


def killed_agent(place: Place) -> None:
    """One that has set POD and a ceiling, and died."""
    words = [sys.executable, "-c", CHILD, str(place.nic)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline()
        finally:
            child.send_signal(signal.SIGKILL)


def test_after_kill_9_the_classes_stay_and_the_next_agent_adopts_them(
    place: Place, marks: BpfMarks, edt: Edt
) -> None:
    assert marks.remove()
    htb()
    killed_agent(place)
    left = ours(place)
    assert edt.there(place.nic)
    assert sent(place, Qos.BATCH, 20, pod=True) == 20
    next_marks = BpfMarks()
    assert next_marks.set(POD, [place.nic]) == 0
    assert edt.set(place.nic, tree(2e7)) == 0
    assert ours(place) == left
    assert edt.set(place.nic, tree(3e7)) == 1
    assert seen(edt, place)[Qos.BATCH].packets == 20
    assert next_marks.set(NOBODY, [place.nic]) == 2
    assert sent(place, Qos.BATCH, 20, pod=True) == 0
    next_marks.close()


def test_what_is_removed_without_any_memory_leaves_nothing(place: Place, marks: BpfMarks, edt: Edt) -> None:
    marks.remove()
    before = place.egress()
    killed_agent(place)
    assert place.egress() != before
    assert edt.remove(place.nic)
    assert marks.remove()
    assert place.egress() == before
    assert not edt.there(place.nic)
    assert not edt.remove(place.nic)
    assert not marks.remove()


FOREIGN = """
    tc filter add dev nic0 egress protocol ip prio 7 u32 match ip dst 10.1.1.1/32 flowid 1:1
    tc filter add dev nic0 egress protocol ip u32 match ip dst 10.1.1.2/32 flowid 1:2
    tc filter add dev nic0 ingress protocol ip prio 7 u32 match ip src 10.1.1.1/32 flowid 1:3
"""


def test_the_clsact_and_filters_of_somebody_else_outlive_us_unchanged(
    place: Place, marks: BpfMarks, edt: Edt
) -> None:
    marks.remove()
    shell("tc qdisc add dev nic0 clsact" + FOREIGN)
    before = place.egress()
    killed_agent(place)
    assert before.splitlines() == [line for line in place.egress().splitlines() if line in before]
    marks.set(NOBODY, [place.nic])
    edt.set(place.nic, tree(1e7))
    assert [each.prio for each in ours(place).values()] == [5, 6]  # before prio 7
    assert edt.remove(place.nic)
    assert marks.remove()
    assert place.egress() == before


def test_an_empty_clsact_of_somebody_else_is_not_ours_to_remove(place: Place, marks: BpfMarks) -> None:
    marks.remove()
    shell("tc qdisc add dev nic0 clsact")
    before = place.egress()
    killed_agent(place)
    assert Edt().remove(place.nic)
    assert marks.remove()
    assert place.egress() == before


def test_our_clsact_stays_for_as_long_as_somebody_uses_it(place: Place, marks: BpfMarks) -> None:
    shell(FOREIGN)
    assert marks.remove()
    assert "10.1.1.1" in place.egress() or "0a010101" in place.egress()
    shell("tc filter del dev nic0 egress; tc filter del dev nic0 ingress")
    assert not marks.remove()  # no filter of ours any more, but now the clsact goes
    assert "clsact" not in place.egress()


def test_an_ingress_qdisc_of_somebody_else_is_refused_and_stays(place: Place, marks: BpfMarks) -> None:
    marks.remove()
    shell("tc qdisc add dev nic0 ingress")
    before = place.egress()
    with pytest.raises(Refused, match="somebody's ingress"):
        marks.set(NOBODY, [place.nic])
    assert place.egress() == before


def test_another_version_of_the_program_is_replaced_and_no_packet_passes_without_class(
    place: Place, marks: BpfMarks
) -> None:
    htb()
    marks.set(POD, [place.nic])
    old = ours(place)[CLASSIFY]
    renamed(place, old)
    fresh = BpfMarks()
    flood = subprocess.Popen(["ip", "netns", "exec", place.pod, *flooding(2000)])
    assert fresh.set(POD, [place.nic]) == 3  # two addresses and the program
    assert flood.wait() == 0
    assert place.packets()[MINOR[Qos.BATCH]] == 2000
    new = ours(place)[CLASSIFY]
    assert (new.prio, new.handle, new.name) == (old.prio, old.handle, NAME)
    assert new.program != old.program
    fresh.close()


def renamed(place: Place, held: Filter) -> None:
    """The same program under the name of another version."""
    from nodeagent.kernel.nic.bpf.attach import attach
    from nodeagent.kernel.nic.bpf.call import program_by_id

    assert held.program is not None
    with closing(Rtnetlink()) as link:
        attach(link, place.nic, f"{CLASSIFY} of-old", program_by_id(held.program))


def flooding(count: int) -> list[str]:
    text = "import socket, time\nudp = socket.socket(type=socket.SOCK_DGRAM)\n"
    text += f"for _ in range({count}):\n    udp.sendto(b'', ('10.77.0.2', 9))\n    time.sleep(0.0002)"
    return [sys.executable, "-c", text]


def test_a_nic_that_vanishes_is_gone_and_the_others_are_served(place: Place, marks: BpfMarks) -> None:
    shell("ip link add nic1 type veth peer name wire1")
    other = int(shell("ip -o link show nic1").partition(":")[0])
    assert marks.set(NOBODY, [place.nic, other]) == 1
    shell("ip link del nic1")
    with pytest.raises(Gone):
        marks.set(POD, [other, place.nic])
    assert marks.set(POD, [place.nic]) == 0
    shell("ip link add nic1 type veth peer name wire1")
    other = int(shell("ip -o link show nic1").partition(":")[0])
    assert marks.set(POD, [place.nic, other]) == 1
    shell("ip link del nic1")
    assert marks.set(POD, [place.nic]) == 0


def test_a_nic_that_is_no_longer_shaped_loses_the_program(place: Place, marks: BpfMarks) -> None:
    assert ours(place)
    assert marks.set(NOBODY, []) == 1
    assert not ours(place)
    assert "clsact" not in place.egress()


WITHOUT = """
from nodeagent.kernel.nic.clsact import Clsact
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.nic.bpf.marks import BpfMarks
from nodeagent.kernel.nic.bpf.pacing import Edt
from nodeagent.model.errors import Refused
from tests.live.test_nic_bpf import POD, tree
for attempt in (lambda: BpfMarks().set(POD, [1]), lambda: Edt().set(1, tree(1e7))):
    try:
        attempt()
    except Refused as error:
        assert "CAP_BPF" in error.hint, error
        assert not Clsact(Rtnetlink()).seen()
        print("refused")
"""


def test_without_the_capability_it_is_refused_with_a_hint_and_nothing_is_left() -> None:
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.split() == ["refused", "refused"], done.stderr


def test_a_hundred_lives_leave_no_descriptor(place: Place) -> None:
    gc.collect()  # what other tests have left
    counts = []
    for _ in range(100):
        marks, edt = BpfMarks(), Edt()
        marks.set(POD, [place.nic])
        edt.set(place.nic, tree(1e7))
        edt.read(place.nic)
        edt.close()
        marks.close()
        counts.append(descriptors())
    assert counts[-1] == counts[0]


def test_without_fq_packets_are_counted_by_class_and_dropped_beyond_the_horizon(
    place: Place, edt: Edt
) -> None:
    assert edt.read(place.nic) is None
    assert edt.set(place.nic, tree(1e6, queue_bytes=1)) == 2  # Batch's limit and the program
    assert edt.set(place.nic, tree(1e6, queue_bytes=1)) == 0
    place.send(200, priority=classid(Qos.BATCH), size=1000)
    place.send(200, priority=classid(Qos.MID), size=1000)
    place.send(200, size=1000)
    batch, mid, ls = (seen(edt, place)[qos] for qos in (Qos.BATCH, Qos.MID, Qos.LS))
    assert (mid.packets, mid.drops, mid.overlimits) == (200, 0, 0)
    assert ls.packets >= 200 and (ls.drops, ls.overlimits) == (0, 0)
    assert mid.bytes == 200 * (1000 + 8 + 20 + 14)
    assert batch.packets + batch.drops == 200
    assert batch.drops > 0
    assert batch.ceil_bps == 1e6 and mid.ceil_bps == math.inf
    assert edt.set(place.nic, tree(math.inf)) == 1
    place.send(200, priority=classid(Qos.BATCH), size=1000)
    assert seen(edt, place)[Qos.BATCH].packets == batch.packets + 200


SINK = """
import socket, threading
def drain(one):
    while one.recv(1 << 20): pass
with socket.create_server(("10.77.0.2", 9999)) as server:
    print("ready", flush=True)
    while True:
        threading.Thread(target=drain, args=(server.accept()[0],), daemon=True).start()
"""
STREAM = """
import socket, sys
with socket.socket() as tcp:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, int(sys.argv[1]))
    tcp.connect(("10.77.0.2", 9999))
    while True:
        tcp.send(bytes(1 << 16))
"""


@pytest.fixture(params=["fq", "mq"])
def paced(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place whose NIC has somebody's fq, at its root or below its mq, and a sink at the peer."""
    with placed(queues=4 if request.param == "mq" else 1) as place:
        try:
            shell("tc qdisc add dev nic0 root handle 9: " + request.param)
            if request.param == "mq":
                shell("".join(f"tc qdisc add dev nic0 parent 9:{each} fq\n" for each in range(1, 5)))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no {request.param} with fq in this kernel: {error.stderr.strip()}")
        words = ["ip", "netns", "exec", place.peer, sys.executable, "-c", SINK]
        sink = subprocess.Popen(words, stdout=subprocess.PIPE)
        try:
            assert sink.stdout is not None and sink.stdout.readline()
            yield place
        finally:
            sink.kill()
            sink.wait()
            sink.stdout.close()  # type: ignore[union-attr]


class Streams:
    """Greedy TCP streams of our classes."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def add(self, qos: Qos, count: int, *before: str) -> None:
        words = [*before, sys.executable, "-c", STREAM, str(classid(qos))]
        self._running += [subprocess.Popen(words) for _ in range(count)]

    def end(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()


@pytest.fixture
def streams() -> Iterator[Streams]:
    streams = Streams()
    yield streams
    streams.end()


def rates(edt: Edt, place: Place, seconds: float) -> dict[Qos, float]:
    """bits/s of the classes over a time of real seconds, which is what is measured."""
    before, begin = seen(edt, place), time.monotonic()
    time.sleep(seconds)
    after, took = seen(edt, place), time.monotonic() - begin
    return {qos: (after[qos].bytes - before[qos].bytes) * 8 / took for qos in after}


def test_below_fq_batch_has_its_ceiling_and_one_update_moves_it(
    paced: Place, streams: Streams, record_property: Callable[[str, object], None]
) -> None:
    edt = Edt()
    root = shell("tc qdisc show dev nic0")
    edt.set(paced.nic, tree(2e7))
    streams.add(Qos.BATCH, 4)
    rates(edt, paced, 2.0)  # until they are under way
    assert rates(edt, paced, 5.0)[Qos.BATCH] == pytest.approx(2e7, rel=0.05)
    streams.add(Qos.LS, 1)
    rates(edt, paced, 2.0)
    beside = rates(edt, paced, 5.0)
    record_property("20 Mbit/s", beside)
    assert beside[Qos.BATCH] == pytest.approx(2e7, rel=0.05)
    assert beside[Qos.LS] > 5 * beside[Qos.BATCH]
    ls = seen(edt, paced)[Qos.LS]
    assert (ls.drops, ls.overlimits, ls.ceil_bps) == (0, 0, math.inf)
    streams.end()
    fast = Streams()
    fast.add(Qos.BATCH, 4)
    try:
        assert edt.set(paced.nic, tree(1e8)) == 1
        rates(edt, paced, 3.0)
        moved = rates(edt, paced, 5.0)
        record_property("100 Mbit/s", moved)
        assert moved[Qos.BATCH] == pytest.approx(1e8, rel=0.05)
    finally:
        fast.end()
    assert edt.remove(paced.nic)
    assert shell("tc qdisc show dev nic0") == root
    edt.close()


def test_below_fq_a_routed_pod_is_told_by_one_program_and_bounded_by_the_other(
    paced: Place, streams: Streams, record_property: Callable[[str, object], None]
) -> None:
    marks, edt = BpfMarks(), Edt()
    edt.set(paced.nic, tree(2e7, queue_bytes=1_000_000))
    marks.set(POD, [paced.nic])
    prios = {step: each.prio for step, each in ours(paced).items()}
    assert prios[CLASSIFY] < prios[EDT]
    shell(f"ip -n {paced.peer} route add 10.78.0.0/24 via 10.77.0.1")
    streams.add(Qos.LS, 4, "ip", "netns", "exec", paced.pod)  # what a pod says of itself is lost
    rates(edt, paced, 4.0)
    routed = rates(edt, paced, 5.0)
    record_property("20 Mbit/s", routed)
    assert routed[Qos.BATCH] == pytest.approx(2e7, rel=0.05)
    assert seen(edt, paced)[Qos.BATCH].backlog_bytes > 0
    for each in (edt, marks):
        each.close()
