"""The texts of /proc/PID/net that tell a pod's addresses, as kernels wrote them."""

from __future__ import annotations

from nodeagent.kernel.nic.netns import global_v6, local_v4

# Linux 6.18, a namespace with two addresses on eth0, one on lo, and a default route.
FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 0.0.0.0/4 2 0 2
        |-- 0.0.0.0
           /0 universe UNICAST
        +-- 10.1.0.0/24 2 0 2
           +-- 10.1.0.0/28 2 0 1
              |-- 10.1.0.0
                 /24 link UNICAST
              |-- 10.1.0.7
                 /32 host LOCAL
              |-- 10.1.0.9
                 /32 host LOCAL
           |-- 10.1.0.255
              /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 172.30.0.1
        /32 host LOCAL
"""
IF_INET6 = """\
fe80000000000000281decfffe7d13c7 03 40 20 c0     eth0
00000000000000000000000000000001 01 80 10 80       lo
fd000001000000000000000000000007 03 40 00 82     eth0
20010db8000000000000000000000001 0c 40 00 80 a_longer_name_eth
"""


def test_local_addresses_are_found_but_neither_loopback_nor_broadcast_nor_subnets() -> None:
    assert local_v4(FIB_TRIE.splitlines()) == {"10.1.0.7", "10.1.0.9", "172.30.0.1"}


def test_an_address_that_is_also_a_subnet_of_one_is_local() -> None:
    text = "  |-- 10.9.9.1\n     /32 link UNICAST\n     /32 host LOCAL\n"
    assert local_v4(text.splitlines()) == {"10.9.9.1"}


def test_a_route_to_another_host_is_not_local() -> None:
    text = "  |-- 169.254.1.1\n     /32 link UNICAST\n  |-- 10.9.9.1\n     /32 host LOCAL\n"
    assert local_v4(text.splitlines()) == {"10.9.9.1"}


def test_ipv6_addresses_of_global_scope_are_found_unique_local_ones_included() -> None:
    assert global_v6(IF_INET6.splitlines()) == {"fd00:1::7", "2001:db8::1"}


def test_texts_that_are_cut_or_empty_tell_no_address() -> None:
    assert local_v4([]) == set()
    assert local_v4(["  |-- 10.9.9.1", "     /32 ho"]) == set()
    assert global_v6(["", "fe80 02", "zz"]) == set()
