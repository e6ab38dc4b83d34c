"""Which NICs carry what is bridged."""

from __future__ import annotations

from nodeagent.kernel.nic.network import bridge_ports
from tests.unit.nic_node import link


def test_a_nic_below_the_vlan_or_the_bond_that_is_in_a_bridge_carries_what_is_bridged() -> None:
    links = [
        link("br0", 2, kind="bridge"),
        link("eth0.5", 3, kind="vlan", lower=("bond0",), master="br0"),
        link("bond0", 4, kind="bond", lower=("eth0", "eth1")),
        link("eth0", 5, master="bond0"),
        link("eth1", 6, master="bond0"),
        link("eth2", 7),
    ]
    found = bridge_ports({each.name: each for each in links})
    assert found == {"eth0.5", "bond0", "eth0", "eth1"}
