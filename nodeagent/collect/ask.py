"""`nodeagent collect view`: what a running controller has gathered, once."""

from __future__ import annotations

import grpc

from nodeagent.collect.server import MAX_VIEW_BYTES
from nodeagent.collect.told import Summary, summary
from nodeagent.model.errors import Failed, Refused
from nodeagent.rpc.channel import Target, opened
from nodeagent.rpc.tls import TlsFiles
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1.collector_pb2_grpc import ClusterStub

HINT = "is `nodeagent collect` running there? see its --listen"


def ask(address: str, tls: TlsFiles | None, name: str, *, nodes: bool, timeout_s: float) -> Summary:
    """What the controller at `address` says; Failed or Refused with what to do when it says nothing.

    `name` is that in its certificate, "" = the host of the address.
    """
    target = Target(address, tls, name, "controller", HINT)
    with opened(target, ("grpc.max_receive_message_length", MAX_VIEW_BYTES)) as channel:
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
