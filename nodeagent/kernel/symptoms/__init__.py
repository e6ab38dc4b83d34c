"""What tells of trouble in one pod: its run queue, its reclaim, its devices, its TCP.

All of it is read in the slow tier, and in every tick of pods that somebody attends to.
"""
