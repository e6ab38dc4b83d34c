"""A host with a NIC, a client on the wire and pods behind veths: the host is the calling thread's namespace.

    client eth0 -- nic0 host pod0 -- eth0 pod 0
                             pod1 -- eth0 pod 1

No namespace has a name: they end with the processes that are in them.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shutil import which

import pytest

from tests.live.running import TIMEOUT_S, until

_CLONE_NEWNET = 0x40000000
PORT = 5201
# Either end of a TCP connection tells when it is ready; the receiver tells bytes per second, from the second
# half of its time, once slow start is over.
_RECEIVE = """
import socket, sys, time
family, address, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
server = socket.create_server((address, 5201), family=family)
print("ready", flush=True)
connection, _ = server.accept()
begin, counted = time.monotonic(), 0
while connection.recv(1 << 18) and time.monotonic() < begin + seconds / 2: pass
middle = time.monotonic()
while data := connection.recv(1 << 18):
    counted += len(data)
    if time.monotonic() > begin + seconds: break
print(counted * 8 / (time.monotonic() - middle), flush=True)
"""
_SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 5201), timeout=10)
try:
    while True: connection.sendall(bytes(1 << 16))
except OSError: pass
"""
_KNOCK = """
import socket, sys
try: socket.create_connection((sys.argv[1], 9), timeout=3)
except ConnectionRefusedError: sys.exit(0)
except OSError: sys.exit(1)
"""


class Space:
    """A network namespace that a process holds."""

    def __init__(self) -> None:
        words = ["unshare", "--net", "sh", "-c", "echo in; exec cat"]
        self._held = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._held.stdout is not None
        assert self._held.stdout.readline() == b"in\n"
        self.pid = self._held.pid

    def words(self, *command: str) -> list[str]:
        """A command inside."""
        return ["nsenter", "--net", f"--target={self.pid}", *command]

    def end(self) -> None:
        """Idempotent; the namespace's devices go soon after."""
        self._held.kill()
        self._held.wait(TIMEOUT_S)
        for stream in (self._held.stdin, self._held.stdout):
            assert stream is not None
            stream.close()


class Machine:
    """The host; pod n has the addresses 10.8.0.n+10 and fd08::(n+10)."""

    def __init__(self, pods: int) -> None:
        self.client, self.pods = Space(), [Space() for _ in range(pods)]
        run("ip", "link", "set", "lo", "up")
        for sysctl in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            with open(f"/proc/sys/net/{sysctl}", "w") as file:
                file.write("1")
        self._join(self.client, "nic0", "10.9.0", "fd09::", 2, gateway=1)
        for number, pod in enumerate(self.pods):
            self._join(pod, f"pod{number}", "10.8.0", "fd08::", number + 10, gateway=1)
        until(lambda: "NO-CARRIER" not in run("ip", "link", "show"), "the links' carriers")

    def _join(self, space: Space, name: str, v4: str, v6: str, host: int, gateway: int) -> None:
        ip(f"link add {name} type veth peer name eth0 netns {space.pid}", f"link set {name} up")
        length = (24, 64) if name == "nic0" else (32, 128)
        ip(
            f"address add {v4}.{gateway}/{length[0]} dev {name}",
            f"address add {v6}{gateway}/{length[1]} dev {name} nodad",
        )
        if name != "nic0":
            ip(f"route add {v4}.{host}/32 dev {name}", f"route add {v6}{host:x}/128 dev {name}")
        ip(
            "link set lo up",
            "link set eth0 up",
            f"address add {v4}.{host}/{length[0]} dev eth0",
            f"address add {v6}{host:x}/{length[1]} dev eth0 nodad",
            f"route replace {v4}.{gateway} dev eth0",
            f"route replace {v6}{gateway} dev eth0",
            f"route add default via {v4}.{gateway} dev eth0",
            f"route add default via {v6}{gateway} dev eth0",
            inside=space,
        )

    def reaches(self, pod: int, version: int = 4) -> bool:
        """Whether a packet comes from the client to the pod, and back: nobody listens, and that is told."""
        words = self.client.words(sys.executable, "-c", _KNOCK, pod_address(pod, version))
        return subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode == 0

    def download(self, pods: Sequence[int], version: int, seconds: float) -> list[float]:
        """What each of the pods receives from the client, all at once, in bits per second."""
        return transfers(
            [(self.client, self.pods[pod], pod_address(pod, version)) for pod in pods], version, seconds
        )

    def upload(self, pod: int, version: int, seconds: float) -> float:
        """What the client receives from the pod, in bits per second."""
        address = "10.9.0.2" if version == 4 else "fd09::2"
        return transfers([(self.pods[pod], self.client, address)], version, seconds)[0]

    def end(self) -> None:
        for space in (self.client, *self.pods):
            space.end()


def pod_address(pod: int, version: int) -> str:
    return f"10.8.0.{pod + 10}" if version == 4 else f"fd08::{pod + 10:x}"


def both(pod: int) -> tuple[str, str]:
    return pod_address(pod, 4), pod_address(pod, 6)


def transfers(ways: Sequence[tuple[Space, Space, str]], version: int, seconds: float) -> list[float]:
    """TCP from, to, address: what arrives, in bits per second; an address must be another's each."""
    family = "2" if version == 4 else "10"
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _, receiver, address in ways:
            words = receiver.words(sys.executable, "-c", _RECEIVE, family, address, str(seconds))
            running.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        receivers = list(running)
        for process in receivers:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for sender, _, address in ways:
            running.append(subprocess.Popen(sender.words(sys.executable, "-c", _SEND, address)))
        return [float(process.communicate(timeout=TIMEOUT_S)[0]) for process in receivers]
    finally:
        for process in running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def machine(pods: int = 2) -> Iterator[Machine]:
    """In a host of its own; skips where there can be none."""
    for tool in ("ip", "tc", "unshare", "nsenter"):
        if which(tool) is None:
            pytest.skip(f"no {tool} on this host")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(_CLONE_NEWNET) < 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        made = None
        try:
            made = Machine(pods)
            yield made
        finally:
            if made is not None:
                made.end()
            assert libc.setns(before, _CLONE_NEWNET) == 0
    finally:
        os.close(before)


def run(*words: str) -> str:
    """What a command says in the host; AssertionError with its error when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


def ip(*commands: str, inside: Space | None = None) -> None:
    """Commands of ip(8), in the host or `inside`."""
    words = ["ip", "-batch", "-"] if inside is None else inside.words("ip", "-batch", "-")
    done = subprocess.run(words, input="\n".join(commands), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{commands}: {done.stderr}"


def everything() -> str:
    """All links, qdiscs and filters of the host, as tc and ip show them (without counters)."""
    links = run("ip", "-o", "link", "show")
    names = [line.split(": ")[1].split("@")[0] for line in links.splitlines()]
    parents = ("root", "ingress", "egress")
    shown = (run("tc", "filter", "show", "dev", name, parent) for name in names for parent in parents)
    qdiscs = re.sub(r"direct_packets_stat \d+", "", run("tc", "-d", "qdisc", "show"))
    return links + qdiscs + "".join(shown)
