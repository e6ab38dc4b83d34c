"""An explanation for people: each value with its reason, the law, the numbers, and what the kernel has.

cpu.quota nodeagent/batch/transcode-3 = 3.2 cores                                          (cpu_quota)
    min(own_limit, tier_quota, max(pod_floor, share))
  = min(inf, 6.4, max(0.02, 3.2))
    own_limit    no limit    its quota without us
    written 3.2 cores, read back 3.2 cores
"""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Iterator

import msgspec

from nodeagent.model.explanation import Explanation, Reason
from nodeagent.report.text import printable

WIDTH = 110


def as_json(found: Explanation) -> str:
    """The explanation as it is."""
    return msgspec.json.encode(found).decode()


def as_text(found: Explanation) -> str:
    """All values at a glance; then a block for each, in the order in which they follow from each other."""
    at = datetime.datetime.fromtimestamp(found.observed_unix, tz=datetime.UTC).astimezone()
    head = f"{printable(found.subject)}: tick {found.seq} at {at:%Y-%m-%d %H:%M:%S}"
    blocks = (line for each in found.reasons for line in _block(each))
    return "\n".join([head, "", *_glance(found), *blocks])


def _glance(found: Explanation) -> Iterator[str]:
    """Every value in a line, before it is told how each came about."""
    names = max((len(printable(each.name)) for each in found.reasons), default=0)
    values = max((len(each.result) for each in found.reasons), default=0)
    for each in found.reasons:
        line = f"{printable(each.name):<{names}}  {each.result:>{values}}  {printable(each.why)}".rstrip()
        yield line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _block(each: Reason) -> Iterator[str]:
    yield ""
    title = f"{printable(each.name)} = {each.result}"
    yield f"{title:<{WIDTH - len(each.by) - 3}} ({each.by})" if each.by else title
    if each.why:
        yield from _wrapped(printable(each.why), "    ")
    if each.rule and each.rule != each.arithmetic:
        yield from _wrapped(each.rule, "    ")
    if each.arithmetic and each.arithmetic != each.result:
        yield from _wrapped(f"= {each.arithmetic}", "  ")
    names = max((len(i.name) for i in each.inputs), default=0)
    values = max((len(i.value) for i in each.inputs), default=0)
    for i in each.inputs:
        yield f"      {i.name:<{names}}  {i.value:>{values}}  {printable(i.source)}".rstrip()
    if each.written or each.read_back:
        written = f"written {each.written}" if each.written else "not written in this tick"
        back = f"read back {each.read_back}" if each.written else f"the kernel has {each.read_back}"
        yield f"    {written}" + (f", {back}" if each.read_back else "")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent="      ")
