"""What systemd is told, when, and what it keeps of others: over a socket that answers as it does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nodeagent import keep
from nodeagent.kernel.cgroup import KnobCgroup
from nodeagent.model.errors import Garbled
from nodeagent.model.plan import Kept, Kind, Knob
from nodeagent.restore import give_back
from nodeagent.units import patience
from nodeagent.units.bus import Bus
from tests.unit.systemd_socket import Agent, Systemd

PATHS = [f"batch.slice/u{number}.service" for number in range(4)]
QUOTAS = [Knob(Kind.CPU_QUOTA, path) for path in PATHS]
WEIGHTS = [Knob(Kind.CPU_WEIGHT, path) for path in PATHS]
UNIT, PATH, QUOTA, WEIGHT = "u0.service", PATHS[0], QUOTAS[0], WEIGHTS[0]
BURST = Knob(Kind.CPU_BURST, PATH)


@pytest.fixture
def systemd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Systemd]:
    with Systemd(tmp_path, PATHS, getattr(request, "param", "252.39-1~deb12u1")).listening() as systemd:
        yield systemd


@pytest.fixture
def agent(tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setattr(KnobCgroup, "keeps", False)  # open files of this tree outlive their directory
    agent = Agent(tmp_path, [*QUOTAS, *WEIGHTS, BURST])
    yield agent
    agent.close()


@pytest.fixture
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if PACE_S passed between two ticks."""
    monkeypatch.setattr(keep, "PACE_S", 0.0)
    monkeypatch.setattr(patience, "PACE_S", 0.0)


@pytest.mark.parametrize("burst", [2.0, 4.0])
def test_what_an_operator_set_is_left_to_him_when_we_no_longer_want_the_knob(
    systemd: Systemd, agent: Agent, burst: float
) -> None:
    agent.tick({QUOTA: 3.0, BURST: 2.0})
    systemd.set(UNIT, {"CPUQuotaPerSecUSec": 4_000_000})
    systemd.told.clear()
    agent.tick({BURST: burst})
    assert QUOTA not in agent.originals.held
    assert (systemd.quota(PATH), systemd.told) == (4.0, [])
    assert systemd.dropins(UNIT) == {"50-CPUQuota.conf": "4000000\n"}


def test_a_knob_that_is_yielded_is_not_told_when_another_of_its_unit_is_begun(
    systemd: Systemd, agent: Agent
) -> None:
    agent.tick({QUOTA: 0.5})
    systemd.set(UNIT, {"CPUQuotaPerSecUSec": 30_000})
    systemd.told.clear()
    agent.tick({QUOTA: 0.5, WEIGHT: 0.5}, yielded=(QUOTA,))
    assert systemd.told == [(UNIT, {"CPUWeight": 50})]
    assert systemd.quota(PATH) == 0.03


def test_what_the_unit_has_from_us_is_told_when_another_knob_of_it_is_begun(
    systemd: Systemd, agent: Agent
) -> None:
    agent.tick({QUOTA: 0.5})
    agent.tick({QUOTA: 0.8})
    agent.tick({QUOTA: 0.8, WEIGHT: 0.5})
    assert systemd.told[-1] == (UNIT, {"CPUQuotaPerSecUSec": 800_000, "CPUWeight": 50})
    assert systemd.quota(PATH) == 0.8


def test_a_knob_that_no_property_is_for_begins_nothing(systemd: Systemd, agent: Agent) -> None:
    agent.tick({QUOTA: 0.5})
    agent.tick({QUOTA: 0.8, BURST: 0.1})
    assert len(systemd.told) == 1
    assert agent.originals.held[BURST].kept is None


@pytest.mark.parametrize("number", range(4))
def test_a_unit_that_systemd_refuses_does_not_keep_the_others_from_being_told(
    systemd: Systemd, agent: Agent, number: int
) -> None:
    refused = f"u{number}.service"
    systemd.refused.add(refused)
    for _ in range(3):
        agent.tick(dict.fromkeys(QUOTAS, 0.5))
    assert sorted(unit for unit, _ in systemd.told) == sorted(systemd.paths.keys() - {refused})
    assert len(agent.keeper.news) == 1 and agent.keeper.news[0].startswith(f"{refused}: systemd: out of")
    assert systemd.quota(PATHS[number]) == 0.5
    agent.tick({})
    assert all(not systemd.dropins(unit) for unit in systemd.paths)


@pytest.mark.parametrize("systemd", ["249.11-0ubuntu3", "252"], indirect=True)
def test_idle_is_told_to_a_systemd_that_takes_it_and_all_else_to_an_older_one(
    systemd: Systemd, agent: Agent
) -> None:
    for _ in range(2):
        agent.tick({QUOTA: 0.5, WEIGHT: 0.0})
    takes = {} if systemd.version.startswith("249") else {"CPUWeight": 0}
    assert systemd.told == [(UNIT, {"CPUQuotaPerSecUSec": 500_000, **takes})]
    assert agent.keeper.news == []
    assert (agent.originals.held[WEIGHT].kept is None) == (not takes)


def test_a_scope_that_ends_while_it_is_told_is_no_error(
    systemd: Systemd, agent: Agent, unpaced: None
) -> None:
    agent.tick(dict.fromkeys(QUOTAS, 0.5))
    path = systemd.paths.pop(UNIT)
    systemd.told.clear()
    agent.tick(dict.fromkeys(QUOTAS, 0.4))
    assert sorted(unit for unit, _ in systemd.told) == ["u1.service", "u2.service", "u3.service"]
    assert agent.keeper.news == []
    shutil.rmtree(systemd.cgroups / path)
    agent.tick(dict.fromkeys(QUOTAS[1:], 0.4))
    assert QUOTA not in agent.originals.held and systemd.dropins(UNIT) == {}


def test_what_a_restarted_unit_begins_with_is_not_its_own_though_the_last_value_was_not_taken(
    systemd: Systemd, agent: Agent, unpaced: None
) -> None:
    agent.tick({QUOTA: 0.5})
    systemd.refused.add(UNIT)
    agent.tick({QUOTA: 0.8})
    assert agent.originals.held[QUOTA].kept == Kept(0.8, 2.0, True)
    (systemd.cgroups / PATH).rename(systemd.cgroups / "old")
    systemd.start(PATH, 0.5)
    agent.tick({QUOTA: 0.8})
    assert agent.originals.held[QUOTA].original == 2.0
    systemd.refused.clear()
    assert not give_back(agent.originals, agent.knobs, agent.keeper).failed
    assert (systemd.quota(PATH), systemd.dropins(UNIT)) == (2.0, {})


def test_a_cut_of_a_known_unit_waits_only_a_little_for_new_ones_and_a_tick_for_none_too_long(
    systemd: Systemd, agent: Agent, unpaced: None
) -> None:
    agent.tick({QUOTA: 0.5})
    systemd.delay_s = 1.5
    changed: list[float] = []
    apply = agent._host.apply
    began = time.monotonic()

    def timed(*changes: object) -> object:
        changed.append(time.monotonic() - began)
        return apply(*changes)  # type: ignore[arg-type]

    agent._host.apply = timed  # type: ignore[assignment, method-assign]
    agent.tick({QUOTA: 0.1, QUOTAS[1]: 0.5})
    took_s = time.monotonic() - began
    assert systemd.quota(PATH) == 0.1
    assert changed[0] < 2.5 * patience.BEGIN_S
    assert took_s < 1.5 * patience.TICK_LIMIT_S


def test_a_path_that_was_no_units_is_asked_about_again(
    systemd: Systemd, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd.paths[UNIT] = "elsewhere.slice/u0.service"
    monkeypatch.setattr(keep, "PACE_S", 0.0)
    agent.tick({QUOTA: 0.5})
    assert (systemd.told, agent.keeper.gives(PATH)) == ([], False)
    systemd.paths[UNIT] = PATH
    agent.tick({QUOTA: 0.5})
    assert systemd.told == []
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + keep.STRANGER_S)
    assert agent.keeper.gives(PATH)
    agent.tick({QUOTA: 0.5})
    assert systemd.told == [(UNIT, {"CPUQuotaPerSecUSec": 500_000})]


def test_a_path_that_was_no_units_is_forgotten_when_it_is_given_back(systemd: Systemd, agent: Agent) -> None:
    systemd.unloaded.add(UNIT)
    agent.tick({QUOTA: 0.5})
    assert not agent.keeper.gives(PATH)
    agent.tick({})
    assert agent.keeper.gives(PATH)


def test_an_operators_drop_in_says_what_he_said_though_the_unit_is_not_loaded_any_more(
    systemd: Systemd, agent: Agent
) -> None:
    systemd.set(UNIT, {"CPUQuotaPerSecUSec": 1_500_000})
    agent.tick({QUOTA: 0.5})
    assert systemd.dropins(UNIT) == {"50-CPUQuota.conf": "500000\n"}
    systemd.unloaded.add(UNIT)
    shutil.rmtree(systemd.cgroups / PATH)
    agent.tick({QUOTA: 0.5})
    assert systemd.dropins(UNIT) == {"50-CPUQuota.conf": "1500000\n"}
    assert QUOTA not in agent.originals.held


def test_a_name_that_dbus_cannot_say_is_garbled_and_the_connection_goes_on(
    systemd: Systemd, tmp_path: Path
) -> None:
    with Bus(str(tmp_path), 5.0) as bus:
        with pytest.raises(Garbled, match="cannot be said"):
            bus.unit("job\udcff.service")
        assert not bus.broken
        assert bus.version() == systemd.version


@pytest.mark.parametrize(
    "odd",
    [
        b"x" * 64,
        b"l\2\0\1\0\0\0\0\1\0\0\0\x08\0\0\0\5\1zq\1\0\0\0",
    ],
)
def test_bytes_that_are_no_message_are_garbled(
    systemd: Systemd, tmp_path: Path, odd: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = SimpleNamespace(serialise=lambda serial: odd)  # noqa: ARG005 (named so by the caller)
    monkeypatch.setattr(systemd, "_answer", lambda _message: message)
    with Bus(str(tmp_path), 5.0) as bus:
        with pytest.raises(Garbled, match="no D-Bus message"):
            bus.version()
        assert bus.broken
