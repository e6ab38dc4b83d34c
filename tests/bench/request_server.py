"""A program: prints its port, then answers each datagram after some CPU work, in a few processes at a time.

Arguments: the number of processes, the CPU time of one request in ms, and a port (any without it). The queue
of requests is the socket's, so that a server which gets no CPU answers late and loses nothing.
"""

import os
import signal
import socket
import sys
import time

QUEUE_BYTES = 4 << 20


def serve(listener: socket.socket, work_s: float) -> None:
    """Answer one request after the other, for ever."""
    while True:
        request, client = listener.recvfrom(64)
        end = time.thread_time() + work_s
        while time.thread_time() < end:
            pass
        listener.sendto(request, client)


def main() -> None:
    """Serve until a signal ends it."""
    processes, work_s = int(sys.argv[1]), float(sys.argv[2]) / 1e3
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
    listener.bind(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0))
    for _ in range(processes):
        if os.fork() == 0:
            serve(listener, work_s)
    print(listener.getsockname()[1], flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
