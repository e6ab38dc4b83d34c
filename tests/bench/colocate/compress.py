"""A program: compresses generated text for ever, on so many CPUs, and counts what it has taken in.

Arguments: the file of the counters (a u64 of bytes for each CPU), and how many CPUs.
"""

import lzma
import os
import random
import struct
import sys

CHUNK_BYTES = 64 << 10
TEXT_BYTES = 4 << 20
PRESET = 1


def text() -> bytes:
    """Words of a vocabulary, as unevenly distributed as words are."""
    luck = random.Random(7)
    words = ["".join(luck.choices("etaoinshrdlu", k=luck.randint(2, 9))) for _ in range(4096)]
    weights = [1.0 / rank for rank in range(1, len(words) + 1)]
    return " ".join(luck.choices(words, weights, k=TEXT_BYTES // 5)).encode()[:TEXT_BYTES]


def work(counters: int, slot: int, data: bytes) -> None:
    """Chunk after chunk; never returns."""
    done, at = 0, slot * CHUNK_BYTES
    while True:
        lzma.compress(data[at : at + CHUNK_BYTES], preset=PRESET)
        done, at = done + CHUNK_BYTES, (at + CHUNK_BYTES) % (len(data) - CHUNK_BYTES)
        os.pwrite(counters, struct.pack("<Q", done), 8 * slot)


if __name__ == "__main__":
    file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
    data = text()
    for number in range(1, int(sys.argv[2])):
        if os.fork() == 0:
            work(file, number, data)
    work(file, 0, data)
