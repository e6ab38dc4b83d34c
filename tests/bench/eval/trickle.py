"""A program: a Batch pod's small steady work, 3 ms of CPU in each 100 ms, until a signal ends it."""

import time

BUSY_S, PAUSE_S = 0.003, 0.097

while True:
    end = time.thread_time() + BUSY_S
    while time.thread_time() < end:
        pass
    time.sleep(PAUSE_S)
