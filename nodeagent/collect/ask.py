"""`nodeagent collect view`: what a running controller has gathered, once."""

from __future__ import annotations

import contextlib

import grpc

from nodeagent.collect.access import TlsFiles
from nodeagent.collect.server import MAX_VIEW_BYTES, where
from nodeagent.collect.told import Summary, summary
from nodeagent.model.errors import Failed, Refused
from nodeagent.rpc.address import Unix
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub

HINT = "is `nodeagent collect` running there? see its --listen"


def ask(address: str, tls: TlsFiles | None, *, nodes: bool, timeout_s: float) -> Summary:
    """What the controller at `address` says; Failed or Refused with what to do when it says nothing."""
    at = where(address, tls)
    options = [("grpc.max_receive_message_length", MAX_VIEW_BYTES)]
    if isinstance(at, Unix):
        channel = grpc.insecure_channel(f"unix:{at.path}", options=options)
    else:
        target = f"[{at.host}]:{at.port}" if ":" in at.host else f"{at.host}:{at.port}"
        secure = tls and tls.channel_credentials()
        channel = (
            grpc.secure_channel(target, secure, options=options)
            if secure
            else grpc.insecure_channel(target, options=options)
        )
    with contextlib.closing(channel):
        try:
            answer = ClusterStub(channel).GetView(pb.GetViewRequest(nodes=nodes), timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise Refused(
                    f"{address}: {error.details()}", hint="see --readers of `nodeagent collect`"
                ) from None
            raise Failed(
                f"no answer from {address}: {error.code().name}: {error.details()}", hint=HINT
            ) from None
    return summary(answer.view)
