"""Incoming traffic, pods behind their veths and classes by address: on the real kernel, in own namespaces."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from nodeagent.kernel.nic.clsact import Clsact
from nodeagent.kernel.nic.ingress import Ingress
from nodeagent.kernel.nic.redirect import PRIO, Redirects
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.nic.tc import Trees
from nodeagent.kernel.nic.u32 import AddressFilters
from nodeagent.kernel.nic.veth import Veths
from nodeagent.model.errors import AgentError, Garbled, Gone, Refused, Unsupported
from nodeagent.model.nic import ClassSeen, HtbClass, Tree
from nodeagent.model.pod import Qos
from tests.live.nic_machine import Machine, both, everything, ip, machine, run
from tests.live.running import SLOWNESS

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MBIT = 1e6
CEILING_BPS = 40 * MBIT
SECONDS = 2.0
BATCH_PODS = [("pod0", Qos.BATCH, both(0)), ("pod1", Qos.LS, both(1))]


def shaped(ceiling_bps: float = CEILING_BPS) -> Tree:
    """LS borrows all but what is Batch's."""
    burst = 65536
    return Tree(
        1000 * MBIT,
        131072,
        (
            HtbClass(Qos.LS, 600 * MBIT, 900 * MBIT, 0, burst, burst, 60000),
            HtbClass(Qos.MID, 100 * MBIT, 900 * MBIT, 1, burst, burst, 15140),
            HtbClass(Qos.BATCH, ceiling_bps, ceiling_bps, 2, burst, burst, 15140),
        ),
    )


def batch(pod: int = 0) -> list[tuple[str, Qos]]:
    return [(address, Qos.BATCH) for address in both(pod)]


def sent(classes: Sequence[ClassSeen] | None, qos: Qos) -> int:
    assert classes is not None
    return next(one.bytes for one in classes if one.qos is qos)


class Kernel:
    """What is tested, on sockets in the namespace of the host."""

    def __init__(self) -> None:
        self.link, self.trees = Rtnetlink(), Trees()
        self.ingress, self.veths = Ingress(self.link, self.trees), Veths(self.link, self.trees)
        self.addresses, self.redirects = AddressFilters(self.link), Redirects(self.link)
        self.clsact = Clsact(self.link)

    def close(self) -> None:
        self.link.close()
        self.trees.close()


@pytest.fixture
def host() -> Iterator[Machine]:
    """Two pods, and nothing left at the end but what was there."""
    open_files = len(os.listdir("/proc/self/fd"))
    with machine() as made:
        yield made
    assert len(os.listdir("/proc/self/fd")) == open_files


@pytest.fixture
def kernel(host: Machine) -> Iterator[Kernel]:
    made = Kernel()
    try:
        made.trees.set(index("nic0"), shaped())
        made.trees.remove(index("nic0"))
        made.veths.set(index("nic0"), shaped(), [("pod0", Qos.BATCH, ())])
    except Unsupported as error:
        pytest.skip(f"{error} ({error.hint})")
    else:
        made.veths.remove(index("nic0"))
        yield made
    finally:
        made.close()


def index(name: str) -> int:
    return socket.if_nametoindex(name)


@pytest.mark.parametrize("version", [4, 6])
def test_downloads_of_a_batch_pod_stay_below_its_ceiling_and_others_do_not(
    host: Machine, kernel: Kernel, version: int
) -> None:
    before, nic = everything(), index("nic0")
    kernel.ingress.set(nic, shaped(), batch())
    limited, free = host.download([0, 1], version, SECONDS)
    seen = kernel.ingress.read(nic)
    assert 0.6 * CEILING_BPS < limited < 1.05 * CEILING_BPS
    assert free > 3 * CEILING_BPS / SLOWNESS
    if SLOWNESS == 1:
        assert sent(seen, Qos.LS) > 4 * sent(seen, Qos.BATCH) > 0
    assert kernel.ingress.set(nic, shaped(), batch()) == 0, "a steady state writes nothing"
    assert kernel.ingress.remove(nic) > 0
    assert everything() == before
    assert kernel.ingress.read(nic) is None
    assert host.reaches(0, version)


def test_what_comes_in_follows_new_pods_classes_and_ceilings(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    kernel.ingress.set(nic, shaped(), batch())
    assert kernel.ingress.set(nic, shaped(20 * MBIT), [(a, Qos.MID) for a in both(0)] + batch(1)) > 0
    began = kernel.ingress.read(nic)
    assert host.reaches(0)
    seen = kernel.ingress.read(nic)
    assert sent(seen, Qos.MID) > sent(began, Qos.MID)
    assert sent(seen, Qos.BATCH) == sent(began, Qos.BATCH)
    assert host.reaches(1, 6)
    assert sent(kernel.ingress.read(nic), Qos.BATCH) > sent(began, Qos.BATCH)
    assert kernel.ingress.set(nic, shaped(), []) > 0
    batch_before = sent(kernel.ingress.read(nic), Qos.BATCH)
    assert host.reaches(1)
    assert sent(kernel.ingress.read(nic), Qos.BATCH) == batch_before


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_pod_sends_is_told_by_its_address(host: Machine, kernel: Kernel, version: int) -> None:
    nic = index("nic0")
    kernel.trees.set(nic, shaped())
    assert kernel.addresses.set(nic, batch()) == 6
    assert kernel.addresses.set(nic, batch()) == 0
    assert host.reaches(1, version)
    assert sent(kernel.trees.read(nic), Qos.BATCH) == 0
    assert 0.6 * CEILING_BPS < host.upload(0, version, SECONDS) < 1.05 * CEILING_BPS
    assert sent(kernel.trees.read(nic), Qos.BATCH) > 10 * sent(kernel.trees.read(nic), Qos.LS)
    assert kernel.addresses.remove(nic) == 2
    assert "u32" not in run("tc", "filter", "show", "dev", "nic0")


def test_pods_with_the_same_last_byte_are_told_apart_in_one_bucket(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    kernel.trees.set(nic, shaped())
    alike = [(f"10.{net}.7.10", Qos.MID) for net in range(100, 164)]
    alike += [(f"fd99:{net:x}::a", Qos.MID) for net in range(64)]
    kernel.addresses.set(nic, [*alike, *batch()])
    assert kernel.addresses.set(nic, [*alike, *batch()]) == 0
    before = sent(kernel.trees.read(nic), Qos.BATCH), sent(kernel.trees.read(nic), Qos.MID)
    assert host.reaches(0, 4) and host.reaches(0, 6)
    after = sent(kernel.trees.read(nic), Qos.BATCH), sent(kernel.trees.read(nic), Qos.MID)
    assert after[0] > before[0] and after[1] == before[1]
    assert kernel.addresses.set(nic, batch()) == len(alike)
    with pytest.raises(Garbled, match="no address"):
        kernel.addresses.set(nic, [("no address", Qos.BATCH)])


@pytest.mark.parametrize("root", ["tbf rate 800mbit burst 256k limit 2m", "htb default 10"])
def test_behind_somebodys_root_a_batch_pod_is_limited_at_its_veth(
    host: Machine, kernel: Kernel, root: str
) -> None:
    run("tc", "qdisc", "add", "dev", "nic0", "root", "handle", "1:", *root.split())
    before, nic = everything(), index("nic0")
    least_bps = (0.6 if SLOWNESS == 1 else 0.5) * CEILING_BPS
    kernel.veths.set(nic, shaped(), BATCH_PODS)
    assert kernel.veths.set(nic, shaped(), BATCH_PODS) == 0
    assert host.upload(1, 4, SECONDS) > 3 * CEILING_BPS / SLOWNESS
    assert sent(kernel.veths.read(nic), Qos.BATCH) < 10_000, "IPv6's own, of pod 0"
    for version in (4, 6):
        assert least_bps < host.upload(0, version, SECONDS) < 1.05 * CEILING_BPS
    assert sent(kernel.veths.read(nic), Qos.BATCH) > 1.5 * least_bps / 8 * SECONDS
    assert sent(kernel.veths.read(nic), Qos.LS) == 0, "what is not known there is Batch's"
    assert run("tc", "filter", "show", "dev", "pod1", "ingress") == ""
    assert kernel.veths.remove(nic) > 0
    assert everything() == before


def test_a_pod_that_leaves_or_is_promoted_is_no_longer_redirected(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    ip("link add pod7 type veth peer name peer7", "link set pod7 up", "link set peer7 up")
    kernel.veths.set(nic, shaped(), [*BATCH_PODS, ("pod7", Qos.MID, ("10.8.0.17",))])
    assert set(kernel.redirects.seen()) == {index("pod0"), index("pod7")}
    ip("link delete pod7")
    assert kernel.veths.set(nic, shaped(), BATCH_PODS) == 1, "its address"
    assert kernel.veths.set(nic, shaped(), [("pod0", Qos.LS, both(0)), ("pod7", Qos.BATCH, ())]) > 0
    assert kernel.redirects.seen() == {}
    assert host.reaches(0)
    kernel.veths.remove(nic)
    assert "clsact" not in everything() and "na-ifb" not in everything()


@pytest.mark.parametrize(("kind", "side"), [("clsact", "ingress"), ("ingress", "parent ffff:")])
def test_a_clsact_and_filters_of_somebody_else_stay_as_they_are(
    host: Machine, kernel: Kernel, kind: str, side: str
) -> None:
    nic = index("nic0")
    for name in ("nic0", "pod0"):
        run("tc", "qdisc", "add", "dev", name, kind)
        match = "protocol ip u32 match ip dst 10.8.0.99 action mirred egress redirect dev lo"
        run("tc", "filter", "add", "dev", name, *side.split(), "pref", "7", *match.split())
    before = everything()
    kernel.ingress.set(nic, shaped(), batch())
    kernel.veths.set(nic, shaped(), BATCH_PODS)
    assert kernel.clsact.seen() == {index("nic0"): False, index("pod0"): False}
    assert host.reaches(0) and sent(kernel.veths.read(nic), Qos.BATCH) > 0
    assert sent(kernel.ingress.read(nic), Qos.BATCH) > 0
    kernel.ingress.remove(nic)
    kernel.veths.remove(nic)
    assert everything() == before


def test_an_empty_clsact_of_somebody_else_stays(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    run("tc", "qdisc", "add", "dev", "nic0", "clsact")
    before = everything()
    kernel.ingress.set(nic, shaped(), batch())
    kernel.ingress.remove(nic)
    assert everything() == before


def test_our_clsact_stays_for_a_filter_that_somebody_has_put_there(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    kernel.ingress.set(nic, shaped(), batch())
    match = "pref 9 protocol ip u32 match ip dst 10.8.0.99 action mirred egress redirect dev lo"
    run("tc", "filter", "add", "dev", "nic0", "egress", *match.split())
    theirs = run("tc", "filter", "show", "dev", "nic0", "egress")
    kernel.ingress.remove(nic)
    assert run("tc", "filter", "show", "dev", "nic0", "egress") == theirs
    assert run("tc", "filter", "show", "dev", "nic0", "ingress") == ""
    run("tc", "filter", "del", "dev", "nic0", "egress")
    kernel.ingress.remove(nic)
    assert "clsact" not in everything(), "the last one out"


def test_who_replaces_our_clsact_owns_it(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    kernel.ingress.set(nic, shaped(), batch())
    run("tc", "qdisc", "replace", "dev", "nic0", "clsact")
    assert kernel.ingress.set(nic, shaped(), batch()) == 0
    kernel.ingress.remove(nic)
    assert "clsact" in run("tc", "qdisc", "show", "dev", "nic0")


def test_filters_of_others_are_never_bypassed(host: Machine, kernel: Kernel) -> None:
    nic = index("nic0")
    kernel.ingress.set(nic, shaped(), batch())
    match = f"pref {PRIO + 1} protocol ip u32 match ip dst 10.8.0.99 action mirred egress redirect dev lo"
    run("tc", "filter", "add", "dev", "nic0", "ingress", *match.split())
    with pytest.raises(Refused, match="bypassed"):
        kernel.ingress.set(nic, shaped(), batch())
    assert kernel.redirects.target(nic) is None
    assert host.reaches(0)


@pytest.mark.parametrize("harm", ["link delete {}", "link set {} down"])
def test_an_ifb_that_somebody_breaks_is_mended(host: Machine, kernel: Kernel, harm: str) -> None:
    nic = index("nic0")
    kernel.ingress.set(nic, shaped(), batch())
    kernel.veths.set(nic, shaped(), BATCH_PODS)
    assert host.reaches(0), "neighbours know each other: that they do not is no reason then"
    ip(harm.format(f"na-ifb{nic}"), harm.format(f"na-ifbv{nic}"))
    assert not host.reaches(0), "nothing comes through: or else this test shows nothing"
    kernel.ingress.set(nic, shaped(), batch())
    kernel.veths.set(nic, shaped(), BATCH_PODS)
    assert host.reaches(0)
    assert sent(kernel.ingress.read(nic), Qos.BATCH) > 0
    assert sent(kernel.veths.read(nic), Qos.BATCH) > 0


def test_without_its_nic_an_ifb_is_an_orphan_that_is_told_and_removed(host: Machine, kernel: Kernel) -> None:
    ip("link add nic7 type veth peer name wire7", "link set nic7 up")
    before, nic = run("ip", "-o", "link", "show", "nic0"), index("nic7")
    kernel.ingress.set(nic, shaped(), batch())
    kernel.veths.set(nic, shaped(), BATCH_PODS)
    ip("link delete nic7")
    assert kernel.ingress.ours() == (nic,) == kernel.veths.ours()
    with pytest.raises(Gone):
        kernel.ingress.set(nic, shaped(), [])
    with pytest.raises(Gone):
        kernel.veths.set(nic, shaped(), [])
    assert kernel.ingress.remove(nic) and kernel.veths.remove(nic)
    assert kernel.ingress.ours() == () == kernel.veths.ours()
    assert run("ip", "-o", "link", "show", "nic0") == before
    assert host.reaches(0)


def test_without_the_right_to_it_is_one_clear_line(host: Machine, kernel: Kernel) -> None:
    os.seteuid(65534)
    try:
        with pytest.raises(Refused, match="not permitted") as told:
            kernel.ingress.set(index("nic0"), shaped(), batch())
    finally:
        os.seteuid(0)
    assert "CAP_NET_ADMIN" in told.value.hint
    ip("link add na-ifb9 type veth peer name other")
    with pytest.raises(Refused, match="no IFB"):
        kernel.ingress.remove(9)


def killed_at(request: int, work: Callable[[Kernel], object]) -> bool:
    """Do the work in another process, killed before its n-th request to the kernel; False if it ends."""
    child = os.fork()
    if child == 0:
        asked, left = Rtnetlink.ask, iter(range(request))

        def ask(self: Rtnetlink, kind: int, flags: int, body: bytes) -> list[bytes]:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return asked(self, kind, flags, body)

        try:
            Rtnetlink.ask = ask  # type: ignore[method-assign]
            work(Kernel())
        except AgentError:
            os._exit(1)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in {0, signal.SIGKILL}
    return status == signal.SIGKILL


def test_killed_at_any_request_it_lets_packets_through_is_taken_over_and_removed(
    host: Machine, kernel: Kernel
) -> None:
    nic, before = index("nic0"), everything()

    def come(kernel: Kernel) -> None:
        kernel.ingress.set(nic, shaped(), batch())
        kernel.veths.set(nic, shaped(), BATCH_PODS)

    def go(kernel: Kernel) -> None:
        kernel.ingress.remove(nic)
        kernel.veths.remove(nic)

    request = 0
    while killed_at(request, come):
        if request % 3 == 0:
            assert host.reaches(0), f"blocked after {request} requests"
        come(kernel)
        assert kernel.ingress.set(nic, shaped(), batch()) == 0 == kernel.veths.set(nic, shaped(), BATCH_PODS)
        go(kernel)
        assert everything() == before, f"left after {request} requests"
        request += 1
    assert request > 30
    request = 0
    while killed_at(request, go):
        assert host.reaches(0), f"blocked after {request} requests of leaving"
        go(kernel)
        assert everything() == before, f"left after {request} requests of leaving"
        come(kernel)
        request += 1
    assert request > 8


def test_what_a_killed_agent_has_left_is_told_by_ours_and_removed(host: Machine, kernel: Kernel) -> None:
    nic, before = index("nic0"), everything()
    request = 0
    while killed_at(request, lambda other: other.veths.set(nic, shaped(), BATCH_PODS)):
        for shaped_nic in kernel.veths.ours():
            kernel.veths.remove(shaped_nic)
        assert everything() == before, f"left after {request} requests"
        request += 1
    assert request > 10
