"""The eBPF assembler and what is loaded with it, without a kernel."""

from __future__ import annotations

import math
import struct

import pytest

from nodeagent.kernel.nic.bpf import classify, edt
from nodeagent.kernel.nic.bpf.assemble import (
    FRAME,
    R0,
    R1,
    R2,
    R6,
    Label,
    Line,
    Reg,
    assemble,
    call,
    compare_exchange,
    compute,
    fetch_add,
    jump,
    jump_if,
    label,
    leave,
    load,
    load_map,
    maps_of,
    move,
    store,
)
from nodeagent.kernel.nic.bpf.attach import CLASSIFY, EDT, Filter, named, prio_for
from nodeagent.kernel.nic.bpf.marks import too_deep, wanted_maps
from nodeagent.kernel.nic.bpf.pacing import limit
from nodeagent.model.errors import Refused
from nodeagent.model.nic import Classifier, HtbClass, Marks, classid
from nodeagent.model.pod import Qos


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (move(R0, -1), "b700 0000 ffff ffff"),
        (move(R6, Reg(R1)), "bf16 0000 0000 0000"),
        (compute(R2, "+", -8), "0702 0000 f8ff ffff"),
        (compute(R2, "/", Reg(R1)), "3f12 0000 0000 0000"),
        (load(R1, R6, 32, 4), "6161 2000 0000 0000"),
        (load(R1, R6, 152, 8), "7961 9800 0000 0000"),
        (store(R6, 32, Reg(R1), 4), "6316 2000 0000 0000"),
        (store(FRAME, -4, 2, 4), "620a fcff 0200 0000"),
        (fetch_add(R1, 8, R2), "db21 0800 0100 0000"),
        (compare_exchange(R1, 0, R2), "db21 0000 f100 0000"),
        (call(83), "8500 0000 5300 0000"),
        (leave(), "9500 0000 0000 0000"),
    ],
)
def test_instructions_are_encoded_as_the_kernel_documents(line: Line, wanted: str) -> None:
    assert assemble([line], {}, "little").hex() == wanted.replace(" ", "")


def test_big_endian_machines_have_the_registers_the_other_way_round() -> None:
    assert assemble([load(R1, R6, 32, 4)], {}, "big").hex() == "6116002000000000"


def test_the_address_of_a_map_takes_two_instructions_and_jumps_know_it() -> None:
    program: list[Line] = [jump_if(R0, "==", 0, "out"), load_map(R1, "entries"), label("out"), leave()]
    assert assemble(program, {"entries": 7}, "little").hex() == (
        "1500020000000000" + "1811000007000000" + "0000000000000000" + "9500000000000000"
    )


def test_a_jump_goes_forward_only() -> None:
    programs: tuple[list[Line], ...] = ([label("loop"), jump("loop")], [jump("nowhere")])
    for program in programs:
        with pytest.raises(ValueError, match="not ahead"):
            assemble(program, {})
    with pytest.raises(ValueError, match="twice"):
        assemble([label("a"), label("a"), leave()], {})


@pytest.mark.parametrize("program", [classify.PROGRAM, edt.PROGRAM])
def test_a_program_is_far_below_the_limit_of_old_kernels_and_uses_every_label(program: list[Line]) -> None:
    maps = dict.fromkeys(maps_of(program), 0)
    assert len(assemble(program, maps)) // 8 < 4096
    used = {line.to for line in program if not isinstance(line, Label)}
    assert {line.name for line in program if isinstance(line, Label)} <= used


def test_another_program_or_another_map_has_another_name() -> None:
    shapes = {"entries": (1, 4, 4, 8)}
    program = (load_map(R1, "entries"), leave())
    name = named(CLASSIFY, program, shapes)
    assert name.startswith("nodeagent-classify ")
    assert name == named(CLASSIFY, program, dict(shapes))
    assert name != named(CLASSIFY, (*program, leave()), shapes)
    assert name != named(CLASSIFY, program, {"entries": (1, 4, 4, 16)})


@pytest.mark.parametrize(
    ("step", "present", "wanted"),
    [
        (CLASSIFY, [], 0x4E51),
        (EDT, [], 0x4E52),
        (EDT, [Filter(0x4E51, 1, f"{CLASSIFY} x")], 0x4E52),
        (CLASSIFY, [Filter(0x4E52, 1, f"{EDT} x")], 0x4E51),
        (CLASSIFY, [Filter(0xC000, 1, "cni")], 0x4E51),  # what tc gives to filters without one
        (CLASSIFY, [Filter(100, 1, "cni")], 98),  # before the others
        (EDT, [Filter(100, 1, "cni")], 99),
        (CLASSIFY, [Filter(1, 1, "cni")], 0x4E51),  # no room
        (CLASSIFY, [Filter(1, 0), Filter(0x4E51, 1, "cni")], 0x4E52),
        (EDT, [Filter(98, 1, f"{CLASSIFY} x"), Filter(99, 1, "cni")], 100),
    ],
)
def test_classify_comes_before_edt_and_both_before_others_where_there_is_room(
    step: str, present: list[Filter], wanted: int
) -> None:
    assert prio_for(step, present) == wanted


def test_no_free_priority_is_refused() -> None:
    with pytest.raises(Refused):
        prio_for(CLASSIFY, [Filter(1, 1, f"{EDT} x")])


def test_marks_become_maps() -> None:
    marks = Marks(
        Classifier.BPF,
        "",
        cgroups=((2, 77, Qos.BATCH), (3, 78, Qos.MID)),
        addresses=(("10.0.0.2", Qos.BATCH), ("fd00::2", Qos.MID)),
    )
    batch, mid = (struct.pack("=I", classid(qos)) for qos in (Qos.BATCH, Qos.MID))
    assert wanted_maps(marks) == {
        "na_levels": {struct.pack("=I", 0): struct.pack("=I", 0b1100)},
        "na_cgroups": {struct.pack("=Q", 77): batch, struct.pack("=Q", 78): mid},
        "na_ipv4": {bytes([10, 0, 0, 2]): batch},
        "na_ipv6": {b"\xfd" + bytes(14) + b"\x02": mid},
    }


@pytest.mark.parametrize("level", [0, 17])
def test_a_cgroup_where_the_program_does_not_look_is_told_and_the_others_are_served(level: int) -> None:
    marks = Marks(Classifier.BPF, "", cgroups=((level, 77, Qos.BATCH), (16, 78, Qos.BATCH)))
    assert list(wanted_maps(marks)["na_cgroups"]) == [struct.pack("=Q", 78)]
    assert "1 cgroups" in str(too_deep(marks))
    assert too_deep(Marks(Classifier.BPF, "", cgroups=marks.cgroups[1:])) is None


def htb(qos: Qos, ceil_bps: float, queue_bytes: int = 0) -> HtbClass:
    return HtbClass(qos, 0.0, ceil_bps, 0, 0, 0, 0, queue_bytes)


@pytest.mark.parametrize(
    ("wanted", "rate", "horizon_s"),
    [
        (htb(Qos.LS, 1e9), 0, 0),
        (htb(Qos.MID, math.inf), 0, 0),
        (None, 0, 0),
        (htb(Qos.MID, 8e8), 100_000_000, 2.0),
        (htb(Qos.BATCH, 8e7, 1_000_000), 10_000_000, 0.1),
        (htb(Qos.BATCH, 8e9, 1_000_000), 1_000_000_000, 0.05),  # never so short that a burst is lost
        (htb(Qos.BATCH, 8e3, 1_000_000), 1_000, 2.0),
        (htb(Qos.BATCH, 0.0), 1, 2.0),  # 0 would mean: not limited
    ],
)
def test_a_ceiling_becomes_bytes_per_second_and_a_horizon(
    wanted: HtbClass | None, rate: int, horizon_s: float
) -> None:
    assert struct.unpack("=QQ", limit(wanted)) == (rate, round(horizon_s * 1e9))
