"""No signal is lost, whatever comes while another one is taken."""

from __future__ import annotations

import os
import select
import signal

import pytest

from nodeagent.signals import Signals


def _send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def test_a_stop_that_comes_with_a_hangup_is_not_lost() -> None:
    with Signals() as signals:
        _send(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)
        poll = select.poll()
        poll.register(signals.fileno(), select.POLLIN)
        assert poll.poll(5000)
        assert signals.take_hangup()
        assert not signals.take_hangup()
        assert signals.stop
        signals.drain()
        assert not poll.poll(0)


@pytest.mark.parametrize(("for_a_terminal", "stops"), [(True, True), (False, False)])
def test_a_hangup_stops_only_what_runs_for_a_terminal(for_a_terminal: bool, stops: bool) -> None:
    with Signals(hangup_stops=for_a_terminal) as signals:
        _send(signal.SIGHUP)
        assert signals.stop is stops


def test_the_handlers_from_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_nobodys_business_wakes_and_is_not_taken() -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGXCPU, lambda number, _frame: taken.append(number))
    try:
        with Signals() as signals:
            _send(signal.SIGXCPU)
            poll = select.poll()
            poll.register(signals.fileno(), select.POLLIN)
            assert poll.poll(5000)
            came = signals.came
            _send(signal.SIGHUP)
            assert (came, signals.came) == (False, True)
            assert [signals.take_hangup(), signals.came] == [True, False]
    finally:
        signal.signal(signal.SIGXCPU, before)
    assert taken == [signal.SIGXCPU]
