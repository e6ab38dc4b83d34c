"""Rules between the keys of [grpc] that give access: who can be reached, must prove itself, and be let in."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.glob import glob_regex
from nodeagent.model.settings import GrpcSettings

FILES = ("tls_cert", "tls_key", "tls_ca")

Complaint = tuple[str, str]  # key, what is wrong with it


def access(grpc: GrpcSettings) -> Iterator[Complaint]:
    """What is wrong with them; whether the files are good is seen when they are read."""
    for key in FILES:
        path = getattr(grpc, key)
        if path and (not path.startswith("/") or ".." in path.split("/")):
            yield f"grpc.{key}", f'takes an absolute path without "..", found "{path}"'
        if grpc.tls_address and not path:
            yield "grpc.tls_address", f"needs grpc.{key} too: {', '.join(FILES)} are PEM files"
    if grpc.tls_address and not (grpc.readers or grpc.directors):
        yield (
            "grpc.tls_address",
            "lets nobody in without grpc.readers or grpc.directors: globs of names in clients' certificates",
        )
    for key in ("readers", "directors"):
        yield from _globs(f"grpc.{key}", getattr(grpc, key))
    if grpc.peer_calls_per_s > grpc.calls_per_s:
        yield (
            "grpc.peer_calls_per_s",
            f"= {grpc.peer_calls_per_s:g} is more than grpc.calls_per_s = {grpc.calls_per_s:g}",
        )


def _globs(key: str, globs: tuple[str, ...]) -> Iterator[Complaint]:
    for glob in globs:
        if not glob.strip("/"):
            yield key, "has an empty glob"
        elif glob.upper().startswith("CN="):
            yield key, f'takes alternative names: a common name is no identity, found "{glob}"'
        elif len(glob) > 512:
            yield key, f"has a glob longer than 512 characters: {glob[:40]}..."
        else:
            glob_regex(glob)
