"""`nodeagent nic` as an operator meets it: asked of a real server over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.errors import Failed
from nodeagent.model.nic import Classifier, Marks, NicPlan, Role, Scheduler
from nodeagent.model.nic_told import NetTold, told
from nodeagent.nic import LISTED, WIDTH, as_text, to_json
from nodeagent.rpc.channel import Target
from nodeagent.rpc.client import network
from tests.unit import samples
from tests.unit.nic_samples import PLANS, nic_tick
from tests.unit.rpc_clients import WAIT_S, eventually, serving

LET_BE = NicPlan(
    name="enp129s0f0np0",
    index=9,
    role=Role.SHARED,
    scheduler=Scheduler.OBSERVE,
    why="htb: the root qdisc cake 8001: is somebody else's; edt: there is no fq at the root or below; "
    "veth: no Batch pod has an interface of its own on the host",
)


def found(tick: Tick | None = None) -> NetTold:
    what = told(tick or nic_tick())
    assert what is not None
    return what


def line(text: str, start: str) -> str:
    return next(each for each in text.splitlines() if each.strip().startswith(start))


def command(address: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "nodeagent", "nic", "--set", f"grpc.address={address}", *words]
    return subprocess.run(
        run, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env}
    )


def test_each_class_has_a_bar_solid_for_its_rate_and_light_up_to_its_ceiling() -> None:
    text = as_text(found())
    assert line(text, "LS") == (
        "  LS     ██████████░░░░░░░░░░░░░░░░░░░░  3.2 Gbit/s   5.7 Gbit/s   9.5 Gbit/s        0 B        0"
    )
    bar = line(text, "Batch")[9:39]
    assert bar == "█" * 16 + "▏" + "░" + " " * 12
    assert line(text, "out,").startswith("  out, 8.73 Gbit/s of 9.5 Gbit/s")
    assert "ceiling: free of online traffic" in text


def test_it_tells_the_step_in_use_why_it_is_no_better_and_what_is_not_told_apart() -> None:
    text = as_text(
        found(nic_tick(plans=(*PLANS, LET_BE), failed=("eth0: class 4e51:30: Operation not permitted",)))
    )
    assert "edt: eBPF sets departure times" in text
    assert "why: htb: the root qdisc fq 8001: is somebody else's" in text
    assert "enp129s0f0np0  shared, not there\n  observe: not shaped\n  why: htb: the root" in text
    assert "packets are told by nftables: 1 cgroup, 2 addresses" in text
    assert "1 pod whose traffic passes for LS:\n  pod7: macvlan: its packets pass" in text
    assert text.endswith("not done: eth0: class 4e51:30: Operation not permitted")


@pytest.mark.parametrize("seen", [None, ()])
def test_no_line_is_wider_than_a_terminal(seen: tuple[()] | None) -> None:
    marks = Marks(Classifier.U32, "nft: no such thing " * 10, unclassified=(("pod", "why " * 60),))
    text = as_text(found(nic_tick(plans=(*PLANS, LET_BE), marks=marks, seen=seen, failed=("because " * 40,))))
    assert max(map(len, text.splitlines())) <= WIDTH


def test_what_is_only_planned_is_said_to_be_so() -> None:
    text = as_text(found(nic_tick(seen=())))
    assert text.count("planned only: the kernel does not have it") == 3
    assert line(text, "LS")[39:].split() == ["?", "5.7", "Gbit/s", "9.5", "Gbit/s", "?", "?"]


def test_a_rate_above_the_top_fills_the_bar_and_nothing_more() -> None:
    told_ = found()
    (nic, *_) = told_.nics
    assert nic.egress is not None
    tiny = replace(nic, egress=replace(nic.egress, top_bps=1.0))
    dead = replace(nic, egress=replace(nic.egress, top_bps=0.0))
    assert f" {'█' * 30} " in line(as_text(replace(told_, nics=(tiny,))), "LS")
    assert "█" not in as_text(replace(told_, nics=(dead,))).split("in, ")[0]


def test_without_a_nic_to_look_after_it_says_how_to_name_one() -> None:
    assert "[[nics]]" in as_text(found(nic_tick(plans=())))


def test_of_many_pods_without_a_mark_the_first_are_listed() -> None:
    marks = Marks(Classifier.NFT, "", unclassified=tuple((f"uid{n}", "no address yet") for n in range(99)))
    text = as_text(found(nic_tick(marks=marks)))
    assert "99 pods whose traffic passes for LS:" in text
    assert text.count("no address yet") == LISTED and f"… and {99 - LISTED} more" in text


def test_it_asks_the_agent_and_shows_the_same_as_text_and_as_json(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    with serving(address) as server:
        server.publish(nic_tick())
        assert eventually(lambda: server.service.latest is not None)
        text = command(address, PYTHONUTF8="1")
        plain = command(address, PYTHONIOENCODING="latin-1")
        data = command(address, "-o", "json")
    assert (text.returncode, text.stderr) == (0, "")
    assert text.stdout == as_text(found()) + "\n"
    assert "##########...................." in plain.stdout and plain.stdout.isascii()
    assert json.loads(data.stdout) == json.loads(to_json(found()))
    assert json.loads(data.stdout)["nics"][0]["egress"]["classes"][2]["drops"] == 1873


def test_an_address_of_tcp_is_asked_as_well() -> None:
    with serving("127.0.0.1:0") as server:
        server.publish(nic_tick())
        assert eventually(lambda: server.service.latest is not None)
        assert network(Target(server.address), timeout_s=WAIT_S) == found()


@pytest.mark.parametrize("running", [False, True])
def test_without_an_agent_or_with_one_that_shapes_nothing_it_says_what_to_do(
    tmp_path: Path, running: bool
) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    if running:
        with serving(address) as server:
            server.publish(samples.tick(1))
            assert eventually(lambda: server.service.latest is not None)
            done = command(address)
        assert 'shapes no traffic (set agent.enforce = ["cpu", "nic"])' in done.stderr
    else:
        done = command(address)
        assert "no agent answers at" in done.stderr and "nodeagent run" in done.stderr
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_an_agent_that_serves_nobody_cannot_be_asked() -> None:
    done = command("")
    assert done.returncode == 1 and "grpc.address is empty" in done.stderr


def test_before_the_first_tick_and_where_nobody_listens_it_is_told(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    with serving(address), pytest.raises(Failed, match="warming up"):
        network(Target(address), timeout_s=WAIT_S)
    with pytest.raises(Failed, match="UNAVAILABLE"):
        network(Target("127.0.0.1:1"), timeout_s=WAIT_S)


def test_watching_repeats_until_it_is_interrupted(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rpc.sock"
    run = [
        sys.executable,
        "-m",
        "nodeagent",
        "nic",
        "--watch",
        "-o",
        "json",
        "--set",
        f"grpc.address={address}",
    ]
    with serving(address) as server:
        server.publish(nic_tick())
        assert eventually(lambda: server.service.latest is not None)
        with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None and watching.stderr is not None
            frames = [json.loads(watching.stdout.readline()) for _ in range(2)]
            watching.send_signal(2)
            assert watching.wait(WAIT_S) == 0
            assert watching.stderr.read() == ""
    assert frames[0] == frames[1] == json.loads(to_json(found()))
