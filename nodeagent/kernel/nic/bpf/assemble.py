"""A small assembler for eBPF: instructions are values, jumps name labels, maps are named.

Words as in Linux Documentation/bpf/standardization/instruction-set.rst.
Invariant: a jump goes forward only, so every program ends.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)
_WIDTHS: Final = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_ARITHMETIC: Final = {"+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "=": 0xB0}
_CONDITIONS: Final = {"==": 0x10, ">": 0x20, "&": 0x40, "!=": 0x50, "s>": 0x60, "<=": 0xB0}
_LOAD, _STORE_NUMBER, _STORE, _JUMP, _ARITHMETIC_64 = 0x61, 0x62, 0x63, 0x05, 0x07
_ATOMIC_64 = 0xDB  # BPF_STX | BPF_ATOMIC | BPF_DW
_FETCH_ADD, _COMPARE_EXCHANGE = 0x01, 0xF1
_REGISTER = 0x08  # the operand is a register, not a number
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD


class Label(NamedTuple):
    """A place to jump to."""

    name: str


class Reg(NamedTuple):
    """A register where a number could stand as well."""

    number: int


class Instruction(NamedTuple):
    """One instruction; `to` names the label that it jumps to, `map` the map whose address it loads."""

    code: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    number: int = 0
    to: str = ""
    map: str = ""

    @property
    def slots(self) -> int:
        """8 bytes each."""
        return 2 if self.map else 1


Line = Instruction | Label


def label(name: str) -> Label:
    """Jumps to `name` come here."""
    return Label(name)


def compute(dst: int, operator: str, operand: int | Reg) -> Instruction:
    """dst = dst operator operand, 64 bits unsigned; "=" moves."""
    return _with_operand(Instruction(_ARITHMETIC[operator] | _ARITHMETIC_64, dst), operand)


def move(dst: int, operand: int | Reg) -> Instruction:
    """dst = operand."""
    return compute(dst, "=", operand)


def load(dst: int, base: int, offset: int, width_bytes: int) -> Instruction:
    """dst = what is at base + offset."""
    return Instruction(_LOAD | _WIDTHS[width_bytes], dst, base, offset)


def store(base: int, offset: int, operand: int | Reg, width_bytes: int) -> Instruction:
    """What is at base + offset = operand. The context takes registers only."""
    code = _STORE if isinstance(operand, Reg) else _STORE_NUMBER
    line = Instruction(code | _WIDTHS[width_bytes], base, 0, offset)
    return line._replace(src=operand.number) if isinstance(operand, Reg) else line._replace(number=operand)


def fetch_add(base: int, offset: int, src: int) -> Instruction:
    """Add src to the 64 bits there, atomically; src = what was there."""
    return Instruction(_ATOMIC_64, base, src, offset, _FETCH_ADD)


def compare_exchange(base: int, offset: int, src: int) -> Instruction:
    """If the 64 bits there are R0, they become src, atomically; R0 = what was there."""
    return Instruction(_ATOMIC_64, base, src, offset, _COMPARE_EXCHANGE)


def jump(to: str) -> Instruction:
    """Go on at the label."""
    return Instruction(_JUMP, to=to)


def jump_if(register: int, condition: str, operand: int | Reg, to: str) -> Instruction:
    """Go on at the label if it holds, unsigned; "s>" is signed, "&" means: has one of these bits."""
    return _with_operand(Instruction(_CONDITIONS[condition] | _JUMP, register, to=to), operand)


def load_map(dst: int, name: str) -> Instruction:
    """dst = the map, for a helper."""
    return Instruction(0x18, dst, _MAP_FD, map=name)


def call(helper: int) -> Instruction:
    """R0 = helper(R1 .. R5); R1 to R5 are lost."""
    return Instruction(0x85, number=helper)


def leave() -> Instruction:
    """Return R0."""
    return Instruction(0x95)


def assemble(program: Sequence[Line], maps: Mapping[str, int], order: str = sys.byteorder) -> bytes:
    """What bpf(2) loads, given the descriptors of the maps. ValueError: a label is not ahead of its jump."""
    labels = _labels(program)
    lines = b""
    at = 0
    for line in program:
        if isinstance(line, Label):
            continue
        at += line.slots
        offset = _distance(labels, line.to, at) if line.to else line.offset
        number = maps[line.map] if line.map else line.number
        lines += _encoded(line._replace(offset=offset, number=number), order)
    return lines


def _labels(program: Sequence[Line]) -> dict[str, int]:
    labels: dict[str, int] = {}
    at = 0
    for line in program:
        if isinstance(line, Instruction):
            at += line.slots
        elif line.name in labels:
            raise ValueError(f"label {line.name} is there twice")
        else:
            labels[line.name] = at
    return labels


def _distance(labels: Mapping[str, int], to: str, at: int) -> int:
    if to not in labels or labels[to] < at:
        raise ValueError(f"label {to} is not ahead of a jump to it")
    return labels[to] - at


def _with_operand(line: Instruction, operand: int | Reg) -> Instruction:
    if isinstance(operand, Reg):
        return line._replace(code=line.code | _REGISTER, src=operand.number)
    return line._replace(number=operand)


def _encoded(line: Instruction, order: str) -> bytes:
    little = order == "little"
    registers = line.src << 4 | line.dst if little else line.dst << 4 | line.src
    form = "<BBhi" if little else ">BBhi"
    first = struct.pack(form, line.code, registers, line.offset, line.number)
    return first + bytes(8) * (line.slots - 1)


def maps_of(program: Sequence[Line]) -> Iterator[str]:
    """The names of the maps, in the order of their use."""
    return iter(dict.fromkeys(line.map for line in program if isinstance(line, Instruction) and line.map))
