"""The guest's end of `exec`: runs what comes over its virtio-serial ports, one command at a time on each.

Host -> guest: one JSON line for each command. Guest -> host: "\\0EXEC <id>\\n", then frames of a type byte, a
length and data: o and e for stdout and stderr, x for the exit code. Another request, or the host hanging up,
kills the running command with its process group. It runs in the guest, on the standard library alone.
"""

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import IO, Any

PORTS = "/sys/class/virtio-ports"
NAME = "nodeagent-vm."
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
CHUNK_BYTES = 65536


class Command:
    """A running command: its process group, its pipes, and a descriptor that tells when it ends."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            request["argv"],
            cwd=request["cwd"] or "/root",
            env={**ENVIRONMENT, **request["env"]},
            bufsize=0,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with open(f"/proc/{self.process.pid}/oom_score_adj", "w") as score:
            score.write("0")  # the agent's own, which it inherited, is -1000
        self.ended = os.pidfd_open(self.process.pid)
        pipes = ((b"o", self.process.stdout), (b"e", self.process.stderr))
        self.pipes: dict[int, tuple[bytes, IO[bytes]]] = {
            pipe.fileno(): (kind, pipe) for kind, pipe in pipes if pipe
        }
        for number in self.pipes:
            os.set_blocking(number, False)

    def read(self, number: int) -> tuple[bytes, bytes]:
        """What the pipe has now, with its kind; the pipe is closed at its end."""
        kind, pipe = self.pipes[number]
        data = pipe.read(CHUNK_BYTES)
        if data == b"":
            pipe.close()
            del self.pipes[number]
        return kind, data or b""

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> int:
        """Reap it; its exit code as a shell would tell it."""
        code = self.process.wait()
        for _, pipe in self.pipes.values():
            pipe.close()
        os.close(self.ended)
        return code if code >= 0 else 128 - code


class Port:
    """One virtio-serial port and the command that runs on it."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR)
        self.pending = b""
        self.command: Command | None = None

    def serve(self) -> None:
        """For ever: requests, output, ends."""
        while True:
            poll = select.poll()
            command = self.command
            for number in (self.fd, *((*command.pipes, command.ended) if command else ())):
                poll.register(number, select.POLLIN)
            ready = {number for number, _ in poll.poll()}
            if self.fd in ready:
                self.receive()
            elif command and ready & command.pipes.keys():
                for number in ready & command.pipes.keys():
                    self.frame(*command.read(number))
            elif command:
                self.finish(command)

    def receive(self) -> None:
        data = os.read(self.fd, CHUNK_BYTES)
        if not data:  # readable without data: the host hung up
            self.kill()
            self.pending = b""
            time.sleep(0.1)
            return
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            try:
                request = json.loads(line)
            except ValueError:
                continue  # empty, or half a line of a client that went away
            self.start(request)

    def start(self, request: dict[str, Any]) -> None:
        self.kill()
        self.send(b"\0EXEC " + request["id"].encode() + b"\n")
        try:
            self.command = Command(request)
        except OSError as error:
            self.frame(b"e", f"vm: {error}\n".encode())
            self.frame(b"x", struct.pack(">i", 127))

    def finish(self, command: Command) -> None:
        """What it has said, and its exit code; daemons that it left behind are not waited for."""
        for number in list(command.pipes):
            while number in command.pipes:
                kind, data = command.read(number)
                if not data:
                    break
                self.frame(kind, data)
        self.command = None
        self.frame(b"x", struct.pack(">i", command.close()))

    def kill(self) -> None:
        if self.command:
            self.command.kill()
            self.command = None

    def frame(self, kind: bytes, data: bytes) -> None:
        if data:
            self.send(kind + struct.pack(">I", len(data)) + data)

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]


def serve(path: str) -> None:
    """A port for ever; what goes wrong on it is told on the console, and it starts anew."""
    while True:
        try:
            Port(path).serve()
        except Exception as error:
            print(path, repr(error), file=sys.stderr, flush=True)
            time.sleep(0.2)


def ours(port: str) -> bool:
    with open(f"{PORTS}/{port}/name") as name:
        return name.read().startswith(NAME)


def main(count: int) -> None:
    """Serve `count` ports, each in a thread from the moment it is there."""
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("-1000")
    threads: dict[str, threading.Thread] = {}
    while len(threads) < count:
        for port in os.listdir(PORTS) if os.path.isdir(PORTS) else ():
            if port not in threads and ours(port):
                threads[port] = threading.Thread(target=serve, args=(f"/dev/{port}",))
                threads[port].start()
        time.sleep(0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
