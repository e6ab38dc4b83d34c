"""A process's network namespace, seen from outside: which it is, and the addresses that it has.

Invariant: no namespace is entered. What /proc/PID/net tells needs no more than being able to read it.
"""

from __future__ import annotations

import os
import socket
import struct

from nodeagent.kernel.errno import translated
from nodeagent.kernel.files import read_whole
from nodeagent.kernel.nic.rtnetlink import Rtnetlink, attribute, attributes, number
from nodeagent.model.errors import Gone, Refused

MOST_ADDRESSES = 64
_MOST_BYTES = 1 << 19  # of a list of them: with routes to 5000 networks
_GETNSID, _NSID, _FD = 90, 1, 3
# One namespace for the thread that asks: setns(2) moves no other.
_OWN = "/proc/thread-self/ns/net"
_GLOBAL_SCOPE = "00"  # IPV6_ADDR_ANY & IPV6_ADDR_SCOPE_MASK in include/net/ipv6.h: neither link nor host


def own_inode() -> int:
    """The inode that tells this thread's network namespace from others; AgentError."""
    return inode(_OWN)


def inode(path: str) -> int:
    """That of a namespace file such as /proc/PID/ns/net; AgentError, Refused without CAP_SYS_PTRACE."""
    try:
        return os.stat(path).st_ino
    except OSError as error:
        raise translated(error, path) from error


def number_here(link: Rtnetlink, path: str) -> int:
    """The number that the namespace of `link` has for the one at `path`, -1 while it has none; AgentError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            answers = link.ask(_GETNSID, 0, bytes(4) + attribute(_FD, struct.pack("=I", fd)))
        finally:
            os.close(fd)
    except OSError as error:
        raise translated(error, path) from error
    return next((number(attributes(each, 4).get(_NSID), -1) for each in answers), -1)


def addresses_of(proc: str, pid: int) -> tuple[str, ...]:
    """Addresses, sorted, that others can send to in the namespace of a process; AgentError.

    Refused when there are more than MOST_ADDRESSES, or too many routes to find them: whoever may unshare(2)
    can have thousands, and they would fill the maps that all pods share.
    """
    v4 = local_v4(_lines(f"{proc}/{pid}/net/fib_trie"))
    found = {*v4, *global_v6(_lines(f"{proc}/{pid}/net/if_inet6"))}
    if len(found) > MOST_ADDRESSES:
        raise Refused(f"it has more than {MOST_ADDRESSES} addresses")
    return tuple(sorted(found))


def local_v4(fib_trie: list[str]) -> set[str]:
    """The local addresses in a fib_trie (net/ipv4/fib_trie.c, fib_triestat_seq_show): leaves that are

    |-- 10.1.0.7
       /32 host LOCAL
    """
    found = set()
    leaf = ""
    for line in fib_trie:
        words = line.split()
        if len(words) == 2 and words[0] == "|--":
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"] and not leaf.startswith("127."):
            found.add(leaf)
    return found


def global_v6(if_inet6: list[str]) -> set[str]:
    """The addresses of global scope in an if_inet6: address, index, prefix length, scope, flags, name."""
    found = set()
    for line in if_inet6:
        words = line.split()
        if len(words) == 6 and len(words[0]) == 32 and words[3] == _GLOBAL_SCOPE:
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[0])))
    return found


def _lines(path: str) -> list[str]:
    """No lines of a file that is not there: a kernel without IPv6."""
    try:
        found = read_whole(path, _MOST_BYTES)
    except Gone:
        if os.path.exists(os.path.dirname(path)):
            return []
        raise
    if len(found) >= _MOST_BYTES:
        raise Refused(f"its {os.path.basename(path)} is longer than {_MOST_BYTES >> 10} KiB")
    return found.decode("ascii", "replace").splitlines()
