"""Certificates of everybody in the soak, and how they change: as cert-manager and the kubelet do it.

Invariant: at any time each side trusts the CA of what the others show, but for the moments of a broken pair.
"""

from __future__ import annotations

from pathlib import Path

from nodeagent.rpc.tls import TlsFiles
from tests.unit.certificates import Authority, Secret

NAMES = {
    "server": "IP:127.0.0.1",
    "link": "DNS:soak-node.agents.example",
    "controller": "IP:127.0.0.1",
    "reader": "DNS:reader.example",
}


class Keys:
    """`files` of each role, in a directory whose ..data is swapped; `changes` counts the swaps by kind."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._number = 0
        self._authority = Authority(home, "ca-0")
        self._trusted = self._authority.ca.read_bytes()
        self._shown = {role: self._authority.issue(name) for role, name in NAMES.items()}
        self._secrets = {role: Secret(home / role, files) for role, files in self._shown.items()}
        self.files = {role: secret.files for role, secret in self._secrets.items()}

    def add_authority(self) -> None:
        """A new CA, which is trusted from now on besides the one before."""
        self._number += 1
        self._authority = Authority(self._home, f"ca-{self._number}")
        self._trusted += self._authority.ca.read_bytes()
        self._swap()

    def renew(self) -> None:
        """Certificates and keys of the newest CA."""
        self._shown = {role: self._authority.issue(name) for role, name in NAMES.items()}
        self._swap()

    def drop_authority(self) -> None:
        """The newest CA is the only one that is trusted."""
        self._trusted = self._authority.ca.read_bytes()
        self._swap()

    def tear(self) -> None:
        """The agent's certificates stand beside a key that is not theirs."""
        for role in ("server", "link"):
            self._secrets[role].swap(self._shown[role]._replace(key=self._shown["reader"].key))

    def mend(self) -> None:
        """All fit again."""
        self._swap()

    def _swap(self) -> None:
        for role, files in self._shown.items():
            Path(files.ca).write_bytes(self._trusted)
            self._secrets[role].swap(TlsFiles(*files))
