"""Token buckets: how often something may happen, and how much at once after a pause. Pure; time is given."""

from __future__ import annotations

from collections import OrderedDict

MAX_PEERS = 1024


class Bucket:
    """`per_s` a second on average, a second's worth at once."""

    __slots__ = ("_at", "_left", "per_s")

    def __init__(self, per_s: float, now: float) -> None:
        self.per_s = per_s
        self._left = max(1.0, per_s)
        self._at = now

    def take(self, now: float) -> bool:
        """True when one more may happen at `now` (monotonic seconds); it then counts."""
        self._left = min(max(1.0, self.per_s), self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Buckets:
    """One bucket for each of the MAX_PEERS peers that were heard last, and one for all together."""

    def __init__(self, per_s: float, per_peer_s: float, now: float) -> None:
        self._per_peer_s = per_peer_s
        self._all = Bucket(per_s, now)
        self._peers: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, peer: str, now: float) -> str:
        """Which limit a call of this peer is above now, or ""; what is refused costs others nothing."""
        bucket = self._peers.pop(peer, None) or Bucket(self._per_peer_s, now)
        self._peers[peer] = bucket
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        if not bucket.take(now):
            return f"more than {self._per_peer_s:g} calls per second from {peer}"
        if not self._all.take(now):
            return f"more than {self._all.per_s:g} calls per second from all clients together"
        return ""
