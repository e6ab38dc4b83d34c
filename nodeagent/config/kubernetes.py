"""What a single key of [kubernetes] cannot tell."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from nodeagent.model.kubernetes import KubernetesSettings

MAX_UNIX_PATH = 107  # unix(7): sun_path is 108 bytes with its NUL


def kubernetes_complaints(settings: KubernetesSettings) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for each rule that is broken."""
    for key in ("token_file", "ca_file"):
        path = getattr(settings, key)
        if not path.startswith("/"):
            yield f"kubernetes.{key}", f'takes an absolute path, found "{path}"'
    url = settings.kubelet_url
    if url and (wrong := _wrong_url(url)):
        yield "kubernetes.kubelet_url", f'{wrong}, found "{url}"'
    if settings.stale_after_s < settings.poll_s:
        poll, stale = settings.poll_s, settings.stale_after_s
        yield "kubernetes.stale_after_s", f"= {stale:g} is shorter than kubernetes.poll_s = {poll:g}"
    endpoint = settings.cri_endpoint
    path = endpoint.removeprefix("unix://")
    if endpoint not in ("", "auto") and not path.startswith("/"):
        yield "kubernetes.cri_endpoint", f'takes unix:///path, "auto" or "", found "{endpoint}"'
    elif len(path.encode()) > MAX_UNIX_PATH:
        yield "kubernetes.cri_endpoint", f"is longer than the {MAX_UNIX_PATH} bytes of a unix socket's path"


def _wrong_url(url: str) -> str:
    try:
        where = urlsplit(url)
        port = where.port
    except ValueError:
        return "takes https://HOST:PORT or http://HOST:PORT"
    plain = where.scheme in ("http", "https") and bool(where.hostname) and port != 0
    if not plain or where.username is not None or where.path.strip("/") or where.query or where.fragment:
        return "takes https://HOST:PORT or http://HOST:PORT"
    return ""
