"""The network as one thing: what does not work is told, and what there is much of takes no longer."""

from __future__ import annotations

import os
import resource
from contextlib import closing
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.nic.bpf.attach import CLASSIFY, detach_everywhere
from nodeagent.kernel.nic.clsact import Clsact
from nodeagent.kernel.nic.marking import Marking
from nodeagent.kernel.nic.network import Network
from nodeagent.kernel.nic.nft_wire import Message, Wire
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.model.errors import Refused
from nodeagent.model.nic import Scheduler
from tests.live.own_netns import ip, own_netns

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
INET, NEW_TABLE, CREATE, OWNER = 1, 0, 0x400, 0x2  # linux/netfilter/nf_tables.h


class Counting(Rtnetlink):
    """Counts what is asked."""

    asked = 0

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        self.asked += 1
        return super().ask(kind, flags, body)


def test_a_table_that_cannot_be_removed_is_told_and_tried_again() -> None:
    with own_netns(), closing(Marking()) as marking:
        with closing(Wire()) as owner:
            table = Message("a table with an owner", NEW_TABLE, INET, {1: "nodeagent", 2: OWNER}, CREATE)
            owner.commit([table], owner.generation())
            with pytest.raises(Refused):
                marking.remove(())
            with pytest.raises(Refused):
                marking.remove(())
        assert marking.remove(()) is False  # it went with its owner


def test_programs_are_looked_for_in_so_many_requests_as_there_are_interfaces() -> None:
    with own_netns(), closing(Counting()) as link:
        ip(*[f"link add nic{number} type veth peer name far{number}" for number in range(20)])
        clsact = Clsact(link)
        for index in range(2, 42):
            clsact.claim(index)
        link.asked = 0
        assert detach_everywhere(link, CLASSIFY) is False
        assert link.asked <= 5 * 40
        assert clsact.seen() == {}


def test_the_probe_looks_at_the_cgroups_of_the_host_that_the_agent_looks_after(tmp_path: Path) -> None:
    with own_netns(), closing(Network(find_hierarchies(), str(tmp_path))) as network:
        assert str(tmp_path) in network.support.schedulers[Scheduler.HTB]


def test_without_any_socket_it_is_one_clear_line() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    os.close(opened)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened, limits[1]))
        with pytest.raises(Refused, match="open rtnetlink: Too many open files"):
            Rtnetlink()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
