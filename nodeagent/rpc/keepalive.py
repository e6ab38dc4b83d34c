"""How soon a peer is missed that is gone without a word."""

from __future__ import annotations

PING_S, PONG_S = 30.0, 10.0


def keepalive(ping_s: float | None = None) -> list[tuple[str, int]]:
    """Options of channels and servers: a peer is asked after `ping_s` without a word (None: PING_S).

    If it does not answer it is given up PONG_S later.
    """
    pong_ms = int(PONG_S * 1e3)
    return [
        ("grpc.keepalive_time_ms", int((ping_s or PING_S) * 1e3)),  # also sets TCP_USER_TIMEOUT
        ("grpc.keepalive_timeout_ms", pong_ms),
        # grpcio 1.85 does not heed the one above alone: a minute went by before it gave up
        ("grpc.http2.ping_timeout_ms", pong_ms),
    ]
