"""A program: what another user does with a unix socket. It says "ready" when it can be used; stdlib only.

pass UID GID LISTEN PATH     copies bytes between who connects to LISTEN and the socket PATH
hold UID GID PATH MANY       opens so many connections to PATH and keeps them until its input ends
"""

from __future__ import annotations

import os
import select
import socket
import sys


def become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def pass_on(uid: int, gid: int, listen: str, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(listen)
        listener.listen()
        print("ready", flush=True)  # noqa: T201
        near = listener.accept()[0]
    become(uid, gid)
    far = socket.socket(socket.AF_UNIX)
    far.connect(path)
    other = {near: far, far: near}
    while True:
        for ready in select.select([near, far], [], [], 30.0)[0]:
            data = ready.recv(65536)
            if not data:
                return
            other[ready].sendall(data)


def hold(uid: int, gid: int, path: str, many: int) -> None:
    become(uid, gid)
    held = [socket.socket(socket.AF_UNIX) for _ in range(many)]
    for each in held:
        each.connect(path)
    print("ready", flush=True)  # noqa: T201
    os.read(0, 1)


if __name__ == "__main__":
    what, who, group, *rest = sys.argv[1:]
    if what == "pass":
        pass_on(int(who), int(group), rest[0], rest[1])
    else:
        hold(int(who), int(group), rest[0], int(rest[1]))
