"""What is on a NIC before, during and after the agent's life: crashes, others' things, NICs that change."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.nic_agent import BATCH, BULK, LS, MID, ONLINE, configured, lost, shaping, until_classified
from tests.live.nic_lab import Lab, classes, inside, lab
from tests.live.nic_loads import Load, Place, ended, load
from tests.live.running import NODEAGENT, SLOWNESS, executed, running, unique, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("tc"), reason="needs ip and tc (iproute2) to look with"),
]
PORT = 7000
_FOREIGN = Path(__file__).with_name("nic_foreign.py")


def _nft(made: Lab, word: str) -> str:
    words = [*inside(made.host), sys.executable, "-I", "-S", str(_FOREIGN), word]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _seen(made: Lab, *nics: str) -> list[str]:
    """All that a host has of queueing, filters, tables and links."""
    found = [_nft(made, "tables"), _nft(made, "dump")]
    for nic in nics or ("nic0",):
        found += [
            made.tc(made.host, f"qdisc show dev {nic}"),
            made.tc(made.host, f"class show dev {nic}"),
            *_filters(made, nic),
        ]
    return [*found, _links(made)]


def _filters(made: Lab, nic: str) -> list[str]:
    return [made.tc(made.host, f"filter show dev {nic} {where}") for where in ("ingress", "egress", "root")]


def _links(made: Lab) -> str:
    words = ["ip", "-n", made.host, "-br", "link"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return "\n".join(sorted(line.split()[0].partition("@")[0] for line in lines))


@contextlib.contextmanager
def _batch(made: Lab, home: Path, mbit_per_s: float = 100) -> Iterator[Load]:
    place = Place(made.host, "batch", "batch", home / "exec")
    with (
        load(Place(made.peer), "sink", PORT) as sink,
        load(place, "send", made.service().v4, PORT, 2, mbit_per_s),
    ):
        yield sink


def test_a_stopped_agent_leaves_the_host_as_it_was(tmp_path: Path) -> None:
    with lab(nics=2) as made:
        before = _seen(made, "nic0", "nic1")
        config = configured(tmp_path, {**ONLINE, "ingress_ratio": 0.8}, BULK)
        with shaping(made, tmp_path, config) as agent, _batch(made, tmp_path):
            until_classified(made, BATCH)
            assert _seen(made, "nic0", "nic1") != before
            assert agent.stop() == 0
            assert _seen(made, "nic0", "nic1") == before


def test_what_somebody_else_has_set_stays_byte_for_byte_through_a_crash(tmp_path: Path) -> None:
    with lab(nics=2) as made:
        _foreign(made)
        theirs, whole = _theirs(made), _seen(made, "nic0", "nic1")
        config = configured(tmp_path, {**ONLINE, "ingress_ratio": 0.8}, BULK)
        with _batch(made, tmp_path):
            with shaping(made, tmp_path, config) as agent:
                until_classified(made, BATCH)
                assert _theirs(made) == theirs
                agent.stop(signal.SIGKILL)
            assert _theirs(made) == theirs
            with shaping(made, tmp_path, config) as agent:
                until_classified(made, BATCH)
                assert _theirs(made) == theirs
                assert agent.stop() == 0
        assert _seen(made, "nic0", "nic1") == whole


def _foreign(made: Lab) -> None:
    """Filters on a clsact of nic0, a root qdisc on nic1, an nftables table."""
    made.tc(made.host, "qdisc add dev nic0 clsact")
    for where in ("ingress", "egress"):
        made.tc(
            made.host,
            f"filter add dev nic0 {where} protocol ip prio 77 u32 match ip dport 9 0xffff flowid 77:1",
        )
    made.tc(made.host, "qdisc add dev nic1 root handle 77: tbf rate 900mbit burst 128kb limit 1mb")
    _nft(made, "make")


def _theirs(made: Lab) -> list[str]:
    clsact = [line for line in made.tc(made.host, "qdisc show dev nic0").splitlines() if "clsact" in line]
    filters = [_of_prio(text, 77) for text in _filters(made, "nic0")]
    return [*clsact, *filters, made.tc(made.host, "qdisc show dev nic1"), _nft(made, "dump")]


def _of_prio(text: str, prio: int) -> str:
    """The filters of one priority, with their continuation lines."""
    kept, keep = [], False
    for line in text.splitlines():
        if line.startswith("filter"):
            keep = f" pref {prio} " in line
        if keep:
            kept.append(line)
    return "\n".join(kept)


@contextlib.contextmanager
def _told(made: Lab, path: Path) -> Iterator[Path]:
    """What `tc monitor` tells in the host meanwhile."""
    with path.open("w") as out:
        words = ["tc", "-n", made.host, "monitor"]
        with ended(subprocess.Popen(words, stdout=out, text=True)) as monitor:
            until(lambda: _heard(made, path) or monitor.poll() is not None, "the monitor")
            yield path


def _heard(made: Lab, path: Path) -> bool:
    """It listens by now: something happens until it tells of it."""
    made.tc(made.host, "qdisc replace dev lo root handle 99: bfifo limit 10000")
    return "99:" in path.read_text()


def test_a_killed_agent_leaves_its_protection_and_the_next_one_takes_it_over_as_it_is(tmp_path: Path) -> None:
    with lab() as made, _batch(made, tmp_path):
        with shaping(made, tmp_path) as agent:
            until_classified(made, BATCH)
            agent.stop(signal.SIGKILL)
        begin = classes(made)
        until_classified(made, BATCH, packets=1000)
        with _told(made, tmp_path / "monitor") as told, shaping(made, tmp_path) as agent:
            until(lambda: bool(agent.named("pod.appeared")), "the pod")
            until_classified(made, BATCH, packets=1000)
            end = classes(made)
            changes = [line for line in told.read_text().splitlines() if "4e51:" in line]
            assert all(line.startswith(f"class htb {BATCH} ") for line in changes), "but for Batch's ceiling"
        assert end[BATCH].packets >= begin[BATCH].packets + 2000, "the counters of a class that was kept"
        assert end[LS].packets - begin[LS].packets < 200, "no gap in which Batch passed for LS"


def test_restore_removes_what_a_killed_agent_left(tmp_path: Path) -> None:
    with lab() as made, _batch(made, tmp_path):
        before = _seen(made)
        with shaping(made, tmp_path, configured(tmp_path, {**ONLINE, "ingress_ratio": 0.8})) as agent:
            until_classified(made, BATCH)
            agent.stop(signal.SIGKILL)
        assert _seen(made) != before
        words = [*inside(made.host), *NODEAGENT, "restore", "--set", f"agent.state_dir={tmp_path / 'state'}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert _seen(made) == before


def test_a_flushed_ruleset_is_repaired_within_a_second(tmp_path: Path) -> None:
    with lab() as made, shaping(made, tmp_path), _batch(made, tmp_path):
        until_classified(made, BATCH)
        for _ in range(3):
            _nft(made, "flush")
            begin = time.monotonic()
            until(lambda: "nodeagent" in _nft(made, "tables"), "the table is there again")
            assert time.monotonic() - begin < 1.5 * SLOWNESS, "a tick, and the time to look"
            until_classified(made, BATCH)


def test_a_deleted_tree_is_made_again(tmp_path: Path) -> None:
    with lab() as made, shaping(made, tmp_path), _batch(made, tmp_path):
        until_classified(made, BATCH)
        made.tc(made.host, "qdisc delete dev nic0 root")
        until(lambda: BATCH in classes(made), "the tree is there again")
        until_classified(made, BATCH)


def test_training_keeps_its_class_on_the_other_nic_while_its_own_is_down(tmp_path: Path) -> None:
    with lab(nics=2) as made:
        training = Place(made.pod(nic=1).namespace, "mid", "training", tmp_path / "exec")
        with (
            shaping(made, tmp_path, configured(tmp_path, ONLINE, BULK)),
            load(Place(made.peer), "sink", PORT),
            load(training, "send", made.service(1).v4, PORT, 2, 50),
        ):
            until(lambda: MID in classes(made, "nic1"), "a tree on nic1")
            until_classified(made, MID, "nic1")
            made.unplug(1)
            until_classified(made, MID, "nic0")
            made.plug_in(1)
            until(lambda: MID in classes(made, "nic1"), "a tree on nic1")
            until_classified(made, MID, "nic1")


def test_a_nic_that_is_renamed_is_followed(tmp_path: Path) -> None:
    with lab() as made, shaping(made, tmp_path) as agent, _batch(made, tmp_path):
        until_classified(made, BATCH)
        made.rename(0, "front0")
        until_classified(made, BATCH, "front0")
        made.tc(made.host, "qdisc delete dev front0 root")
        until(lambda: BATCH in classes(made, "front0"), "it is shaped under its new name")
        until_classified(made, BATCH, "front0")
        assert agent.stop() == 0
        assert "4e51:" not in made.tc(made.host, "qdisc show dev front0")


def test_a_nic_that_comes_back_with_another_index_is_shaped_anew(tmp_path: Path) -> None:
    with lab() as made, shaping(made, tmp_path), _batch(made, tmp_path):
        until_classified(made, BATCH)
        for _ in range(2):
            made.replace(0)
            until(lambda: BATCH in classes(made), "a tree on the new NIC")
            until_classified(made, BATCH)


def test_nothing_of_ls_is_lost_by_a_restart_or_by_a_repair(tmp_path: Path) -> None:
    with lab() as made:
        place = Place(made.host, "ls", "numbers", tmp_path / "exec")
        with (
            shaping(made, tmp_path) as agent,
            load(Place(made.peer), "collect", PORT) as numbers,
            load(place, "emit", made.service().v4, PORT, 1000),
        ):
            until_classified(made, LS)
            agent.stop(signal.SIGKILL)
            with shaping(made, tmp_path):
                _nft(made, "flush")
                until(lambda: "nodeagent" in _nft(made, "tables"), "the table is there again")
                until_classified(made, LS, packets=1000)
                assert lost(numbers) == 0


def test_without_a_nic_of_that_name_the_rest_of_the_agent_runs(tmp_path: Path) -> None:
    with lab() as made:
        before = _seen(made)
        config = configured(tmp_path, {"match": "nosuch*", "link_bps": 10**9})
        with (
            running(tmp_path, config, inside(made.host), agent__enforce="cpu,nic") as agent,
            executed(agent.runtime, "batch", unique("busy"), "sleep 60"),
        ):
            until(lambda: bool(agent.named("knob.written")), "something of CPUs is written")
            assert _seen(made) == before
