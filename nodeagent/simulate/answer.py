"""What a simulation answers. All numbers are finite, so that it is JSON as it is."""

from __future__ import annotations

from msgspec import Struct


class Simulated(Struct, frozen=True, kw_only=True):
    """Integrals over the `hours` in which online use was known; in `unknown_hours` nothing counts as lent.

    cores              of the node; `ceiling_cores` of them may be in use in all
    online, lent       core-hours that online work and Batch got; idle = what online work left of the node
    offered            core-hours that were promised; `offer_changes` times another value, `offer_falls` lower
    saturated_s        online work alone wanted more than the node has
    over_ceiling       Batch's part of what was in use above the ceiling: time, and core-hours
    starved            what online work would have got without Batch and did not get: time, and core-hours
    tasks              were started; each was promised `task_cores`
    withdrawn          promised and then withdrawn while in use: how often that began, core-hours, tasks hit
    squeezed           core-hours by which Batch in all got less than its tasks had been promised
    broken             core-hours promised and then withdrawn or not delivered: the larger one at each moment
    """

    cores: int
    ceiling_cores: float
    hours: float
    unknown_hours: float
    steps: int
    step_s: float
    online_core_hours: float
    idle_core_hours: float
    lent_core_hours: float
    lent_ratio: float
    used_ratio: float
    offered_core_hours: float
    offer_changes: int
    offer_falls: int
    saturated_s: float
    over_ceiling_s: float
    over_ceiling_core_hours: float
    starved_s: float
    starved_core_hours: float
    tasks: int
    task_cores: float
    withdrawn_times: int
    withdrawn_core_hours: float
    withdrawn_tasks: int
    squeezed_core_hours: float
    broken_core_hours: float
    notes: tuple[str, ...] = ()
