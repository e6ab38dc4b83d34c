"""The server that the configuration wants."""

from __future__ import annotations

from nodeagent.model.settings import Settings
from nodeagent.rpc.app_calls import Pushes
from nodeagent.rpc.caller import Access
from nodeagent.rpc.directing import Taker
from nodeagent.rpc.entrance import Terms
from nodeagent.rpc.guard import Limits
from nodeagent.rpc.posted import Accountant
from nodeagent.rpc.server import Beside, RpcServer
from nodeagent.rpc.tls import Identity, TlsFiles


def served_as(  # what the configuration does not tell
    settings: Settings,
    *,
    hostname: str,
    version: str,
    accountant: Accountant,
    directives: Taker,
    beside: Beside,
    pushes: Pushes | None = None,
) -> RpcServer:
    """Not yet started; Failed when the TLS files cannot be used."""
    grpc = settings.grpc
    files = TlsFiles(grpc.tls_cert, grpc.tls_key, grpc.tls_ca)
    access = Access(grpc.readers, grpc.directors, grpc.reader_uids, grpc.director_uids)
    return RpcServer(
        grpc.address,
        hostname=hostname,
        version=version,
        heartbeat_s=grpc.heartbeat_s,
        max_message_bytes=grpc.max_message_bytes,
        max_watchers=grpc.max_watchers,
        reflection=grpc.reflection,
        control=settings.agent.control_address,
        accountant=accountant,
        directives=directives,
        beside=beside,
        tls=Identity(files) if grpc.tls_address else None,
        tls_address=grpc.tls_address,
        pushes=pushes,
        terms=Terms(access, Limits(grpc.calls_per_s, grpc.peer_calls_per_s), grpc.max_connection_age_s),
    )
