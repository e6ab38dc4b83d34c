"""Simulation: what everybody gets on the modelled node, what that adds up to, and the laws of lending."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from array import array
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.policy import CapacityPolicy, CpuPolicy, Policy
from nodeagent.simulate.answer import Simulated
from nodeagent.simulate.fluid import Share, Terms, shared
from nodeagent.simulate.ours import Ours
from nodeagent.simulate.play import Moment, Shape, moments, play
from nodeagent.simulate.tasks import Placed, Tasks
from nodeagent.simulate.trace import Series, Trace, traced

HOUR = 3600.0
CORES = 8
EVER = 1e12  # a task that does not end
WHOLE = Shape(CORES, 1.0, 10.0, task_s=EVER)
BY_QUOTA = Policy(cpu=CpuPolicy(yielding_ceiling_ratio=0.0))
CALM = Policy(cpu=CpuPolicy(dead_band_ratio=0.0, window_s=0.0, yielding_ceiling_ratio=0.0))


class Fixed:
    """Lends by a list: what is said for each step."""

    def __init__(self, *terms: Terms) -> None:
        self._terms = list(terms)
        self.seen: list[Share] = []

    def start(self, at: float) -> Terms:
        self.began_s = at
        return self._terms[0]

    def after(self, share: Share) -> Terms:
        self.seen.append(share)
        return self._terms[min(len(self.seen), len(self._terms) - 1)]


def told(*cores: float, every_s: float = 1.0) -> Trace:
    """One pod; nan: not known."""
    times = array("d", [n * every_s for n in range(len(cores))])
    return traced("here", [Series("web", times, array("d", cores))], None)


def ours(policy: Policy | None = None) -> Ours:
    return Ours(policy or BY_QUOTA, CORES, 32 << 30, ["web"])


def played(trace: Trace, policy: Policy | None = None, shape: Shape | None = None) -> list[Moment]:
    return list(moments(trace, shape or Shape(CORES, 0.95, task_s=EVER), ours(policy)))


def test_batch_gets_what_online_work_leaves_within_its_limit() -> None:
    share = shared(8.0, 10.0, 1.0, (2.0, 3.5), Terms(2.0, 0.0))
    assert share == Share(10.0, 1.0, (2.0, 3.5), (2.0, 3.5), 2.0)
    assert shared(8.0, 10.0, 1.0, (2.0, 3.5), Terms(99.0, 0.0)).batch == pytest.approx(2.5)
    assert shared(8.0, 10.0, 1.0, (2.0,), Terms(math.inf, 0.0)).batch == 0.0  # before anybody lends


def test_where_they_meet_an_idle_batch_gets_three_parts_in_a_thousand() -> None:
    share = shared(8.0, 10.0, 1.0, (9.0,), Terms(3.0, 0.0))
    assert share.online[0] == pytest.approx(8.0 / 1.003)
    assert share.batch == pytest.approx(8.0 * 0.003 / 1.003)


def test_equal_weights_share_evenly() -> None:
    share = shared(8.0, 10.0, 1.0, (9.0,), Terms(99.0, 0.0, batch_weight=1.0))
    assert (share.online[0], share.batch) == pytest.approx((4.0, 4.0))


def test_where_one_demand_is_not_known_nothing_is_known_of_batch() -> None:
    assert shared(8.0, 1.0, 1.0, (2.0, None), Terms(1.0, 1.0)).batch is None


def test_the_totals_of_three_steps_by_hand() -> None:
    """8 cores, 6 of them may be in use; Batch may use 3 and is promised 2."""
    found = play(told(2, 6, 9, every_s=10), Shape(8, 0.75, 10.0, task_s=EVER), Fixed(Terms(3.0, 2.0)))
    last = 8.0 * 0.003 / 1.003  # what Batch gets in the third step, where online work wants 9
    assert found.hours == pytest.approx(30 / HOUR)
    assert found.online_core_hours == pytest.approx((20 + 60 + 80 - 10 * last) / HOUR)
    assert found.lent_core_hours == pytest.approx((30 + 20 + 10 * last) / HOUR)
    assert found.idle_core_hours == pytest.approx(240 / HOUR - found.online_core_hours)
    assert found.offered_core_hours == pytest.approx(60 / HOUR)
    assert (found.over_ceiling_s, found.starved_s, found.saturated_s) == (20.0, 10.0, 10.0)
    assert found.over_ceiling_core_hours == pytest.approx((20 + 10 * last) / HOUR)
    assert found.starved_core_hours == pytest.approx(10 * last / HOUR)
    assert found.squeezed_core_hours == pytest.approx(10 * (2 - last) / HOUR)
    assert (found.tasks, found.withdrawn_times, found.offer_changes) == (2, 0, 0)


def test_online_work_that_exceeds_the_ceiling_alone_is_not_batchs_fault() -> None:
    found = play(told(7, 7, every_s=10), Shape(8, 0.5, 10.0), Fixed(Terms(0.25, 0.0)))
    assert found.over_ceiling_core_hours == found.lent_core_hours == pytest.approx(5 / HOUR)
    assert play(told(7, 7), Shape(8, 0.5), Fixed(Terms(0.0, 0.0))).over_ceiling_s == 0.0


def test_a_promise_is_withdrawn_from_the_youngest_tasks_that_use_it() -> None:
    offers = [Terms(4.0, offered) for offered in (3.0, 1.5, 1.5, 3.0, 2.0)]
    found = play(told(1, 1, 1, 1, 1, every_s=10), WHOLE, Fixed(*offers))
    assert (found.tasks, found.withdrawn_times, found.withdrawn_tasks) == (3, 2, 2)
    assert found.withdrawn_core_hours == found.broken_core_hours == pytest.approx((15 + 15 + 10) / HOUR)
    assert (found.offer_changes, found.offer_falls) == (3, 2)


def test_a_task_that_has_ended_takes_its_promise_along() -> None:
    tasks = Tasks(1.0, 100.0, seed=1)
    assert tasks.place(0.0, 2.9) == Placed(2, 2.0, 0.0, 2, 0)
    assert tasks.place(1e6, 0.5) == Placed(0, 0.0, 0.0, 0, 0)


def test_the_same_seed_gives_the_same_tasks_and_another_one_others() -> None:
    def running(seed: int) -> list[int]:
        tasks = Tasks(0.5, 50.0, seed)
        tasks.place(0.0, 8.0)
        return [tasks.place(at, 0.0).running for at in range(1, 200, 10)]

    assert running(1) == running(1) != running(2)


def test_what_is_not_known_is_counted_as_such_and_as_nothing_else() -> None:
    known = play(told(2, 2, 2, 2, every_s=10), WHOLE, Fixed(Terms(3.0, 2.0)))
    gap = play(told(2, math.nan, 2, 2, every_s=10), WHOLE, Fixed(Terms(3.0, 2.0)))
    assert (gap.hours, gap.unknown_hours) == pytest.approx((30 / HOUR, 10 / HOUR))
    assert gap.lent_core_hours == pytest.approx(known.lent_core_hours * 3 / 4)


def test_what_comes_before_the_end_of_the_warm_up_is_not_counted() -> None:
    lender = Fixed(Terms(3.0, 2.0))
    found = play(told(2, 2, 4, 4, every_s=10), WHOLE, lender, warm_up_s=20.0)
    assert (found.hours, found.online_core_hours) == pytest.approx((20 / HOUR, 80 / HOUR))
    assert (found.tasks, found.steps, len(lender.seen)) == (0, 2, 4)  # the tasks began before


def test_nodeagent_lets_batch_have_what_the_formula_says() -> None:
    """8 cores of which 95 % may be in use, and online work uses 2: that leaves 5.6."""
    found = played(told(*[2.0] * 300))
    assert found[-1].terms.limit_cores == pytest.approx(5.6)
    assert found[-1].share.batch == pytest.approx(5.6)
    assert found[-1].terms.offered_cores == pytest.approx(5.6)
    rise = [m.terms.offered_cores for m in found]
    assert all(b - a <= 0.01 * CORES + 1e-9 for a, b in pairwise(rise))


def test_nodeagent_takes_back_in_the_tick_after_a_surge_and_gives_slowly() -> None:
    found = played(told(*[2.0] * 120, *[6.0] * 30, *[2.0] * 60))
    limits = [m.terms.limit_cores for m in found]
    assert limits[120] == pytest.approx(5.6)  # it cannot have known
    assert limits[121] == pytest.approx(1.6)
    regrown = limits.index(max(limits[151:]), 151)
    assert regrown > 155


def test_where_batch_gives_way_all_is_lent_but_no_more_is_promised() -> None:
    found = played(told(*[2.0] * 300), Policy())
    assert found[-1].share.batch == pytest.approx(6.0)
    assert found[-1].terms.offered_cores == pytest.approx(5.6)


def test_pressure_is_derived_from_the_model_so_that_batch_is_halved() -> None:
    found = played(told(*[2.0] * 60, *[9.0] * 10))
    assert found[-1].terms.limit_cores == pytest.approx(CpuPolicy().floor_cores)
    assert found[-1].terms.offered_cores == 0.0


def test_a_long_gap_withdraws_the_offer() -> None:
    found = played(told(*[2.0] * 200, *[math.nan] * 30, *[2.0] * 5))
    assert found[200].terms.offered_cores > 4.0
    assert found[228].terms.offered_cores == 0.0


demands = st.lists(st.floats(0.0, 0.9 * CORES), min_size=20, max_size=60)
SLOW = settings(max_examples=30, deadline=None)


@SLOW
@given(st.lists(st.floats(0.0, 2.0 * CORES), min_size=2, max_size=60))
def test_no_more_is_lent_than_is_idle_and_nobody_gets_more_than_the_node(cores: list[float]) -> None:
    found = played(told(*cores))
    for moment in found:
        online, batch = moment.share.online[0], moment.share.batch
        assert online is not None and batch is not None
        assert online + batch <= CORES + 1e-9
        assert batch <= moment.terms.limit_cores + 1e-9
    total = play(told(*cores), Shape(CORES, 0.95), ours())
    assert total.lent_core_hours <= total.idle_core_hours + 1e-9


@SLOW
@given(demands, st.floats(0.0, 4.0))
def test_a_larger_reserve_never_lends_more(cores: list[float], reserve: float) -> None:
    kept = replace(CALM, capacity=CapacityPolicy(reserved_cpu_cores=reserve))
    rich, poor = played(told(*cores), CALM), played(told(*cores), kept)
    for more, less in zip(rich, poor, strict=True):
        assert less.terms.limit_cores <= more.terms.limit_cores + 1e-9
        assert less.terms.offered_cores <= more.terms.offered_cores + 1e-9
        assert cast("float", less.share.batch) <= cast("float", more.share.batch) + 1e-9


@SLOW
@given(st.lists(st.one_of(st.none(), st.floats(0.0, 2.0 * CORES)), min_size=20, max_size=60))
def test_what_is_not_known_never_raises_the_limit_or_the_offer(cores: list[float | None]) -> None:
    found = played(told(*(math.nan if c is None else c for c in cores)))
    for before, after in pairwise(found):
        if before.share.batch is None:
            assert after.terms.limit_cores <= before.terms.limit_cores
            assert after.terms.offered_cores <= before.terms.offered_cores


@SLOW
@given(st.sets(st.integers(0, 59), max_size=20), st.floats(0.0, 6.0))
def test_a_constant_load_with_gaps_never_lends_more_than_without(gaps: set[int], cores: float) -> None:
    whole = play(told(*[cores] * 60), Shape(CORES, 0.95, task_s=EVER), ours())
    holes = [math.nan if n in gaps else cores for n in range(60)]
    with_gaps = play(told(*holes), Shape(CORES, 0.95, task_s=EVER), ours())
    assert with_gaps.lent_core_hours <= whole.lent_core_hours + 1e-9


def nodeagent(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodeagent", "simulate", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, input=given)


DAY = "# SYNTHETIC: flat\n" + "".join(f"{n * 10},2\n" for n in range(30))


def test_the_command_answers_in_words_and_as_json_and_takes_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text(DAY)
    words = nodeagent(str(path), "--cores", "8").stdout
    assert "SYNTHETIC: flat" in words
    assert "lent" in words and "a model:" in words
    found = json.loads(nodeagent("-", "--cores", "8", "--step", "1", "-o", "json", given=DAY).stdout)
    assert set(Simulated.__struct_fields__) | {"model"} == set(found)
    assert (found["cores"], found["ceiling_cores"], found["steps"]) == (8, pytest.approx(7.6), 300)
    less = json.loads(
        nodeagent(
            "-", "--cores", "8", "--set", "capacity.reserved_cpu_cores=2", "-o", "json", given=DAY
        ).stdout
    )
    assert 0.0 < less["lent_core_hours"] < found["lent_core_hours"]


@pytest.mark.parametrize(
    ("words", "given", "code", "said"),
    [
        (
            ["-", "--cores", "8"],
            "0,1\n10,x\n",
            1,
            "standard input:2: 'x' is not a number of cores (a row is",
        ),
        (["/does/not/exist", "--cores", "8"], "", 1, "/does/not/exist: No such file or directory"),
        (["/", "--cores", "8"], "", 1, "/: Is a directory"),
        (["-"], DAY, 2, "--cores"),
        (["-", "--cores", "0"], DAY, 2, "--cores"),
        (["-", "--cores", "8", "--step", "nan"], DAY, 2, "--step"),
        (["-", "--cores", "8", "--warm-up", "1000"], DAY, 1, "the trace is over by then"),
        (["-", "--cores", "8", "--memory", "3Q"], DAY, 2, "--memory: not a size"),
        (["-", "--cores", "8", "--format", "alibaba-machine"], DAY, 2, "needs --machine"),
        (["-", "--cores", "8", "--format", "alibaba-container", "--machine", "m_1"], DAY, 2, "needs --meta"),
        (["-", "--cores", "8", "--set", "cpu.flor_cores=1"], DAY, 78, "did you mean cpu.floor_cores?"),
    ],
)
def test_a_wrong_word_or_trace_gets_one_clear_line(
    words: list[str], given: str, code: int, said: str
) -> None:
    done = nodeagent(*words, given=given)
    assert done.returncode == code, done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert said in done.stderr
