"""A certificate authority for tests, by the openssl command."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nodeagent.rpc.tls import TlsFiles

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


class Authority:
    """Signs certificates; `ca` is its own one."""

    def __init__(self, home: Path, name: str = "ca") -> None:
        self.home = home / name
        self.home.mkdir()
        self.ca = self.home / "ca.crt"
        self._serials = itertools.count(1)
        subject = ("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE")
        openssl(
            "req", "-x509", *KEY, *subject, "-days", "30", "-keyout", self.home / "ca.key", "-out", self.ca
        )

    def issue(
        self, *names: str, days: int = 30, common_name: str = "", trusting: Authority | None = None
    ) -> TlsFiles:
        """A certificate with these alternative names ("DNS:a.example"); `days` < 0: it has ended."""
        serial = next(self._serials)
        home = self.home / str(serial)
        home.mkdir()
        key, request, certificate = home / "tls.key", home / "csr", home / "tls.crt"
        openssl("req", "-new", *KEY, "-subj", f"/CN={common_name or serial}", "-keyout", key, "-out", request)
        extension = home / "ext"
        extension.write_text(
            f"subjectAltName={','.join(names)}\n" if names else "keyUsage=digitalSignature\n"
        )
        ca = ("-CA", self.ca, "-CAkey", self.home / "ca.key", "-set_serial", str(serial))
        openssl(
            *("x509", "-req", "-in", request, *ca, "-days", str(days)),
            *("-extfile", extension, "-out", certificate),
        )
        (home / "ca.crt").write_bytes((trusting or self).ca.read_bytes())
        return TlsFiles(str(certificate), str(key), str(home / "ca.crt"))


class Secret:
    """Files as the kubelet mounts a Secret: names are symlinks into ..data, itself one that is swapped."""

    def __init__(self, home: Path, files: TlsFiles) -> None:
        self.home = home
        home.mkdir()
        self._versions = itertools.count(1)
        self.swap(files)
        for name in TlsFiles._fields:
            (home / name).symlink_to(Path("..data", name))
        self.files = TlsFiles(*(str(home / name) for name in TlsFiles._fields))

    def swap(self, files: TlsFiles) -> None:
        """Another version of all three, in one rename."""
        version = self.home / f"..version-{next(self._versions)}"
        version.mkdir()
        for name, path in zip(TlsFiles._fields, files, strict=True):
            (version / name).write_bytes(Path(path).read_bytes())
        (self.home / "..data_tmp").symlink_to(version.name)
        os.rename(self.home / "..data_tmp", self.home / "..data")


def openssl(*words: str | Path) -> None:
    """Run it; CalledProcessError with what it says."""
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
