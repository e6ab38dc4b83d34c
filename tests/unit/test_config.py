# ruff: noqa: E501  # BAD is a table: one bad input a row
"""The configuration: what a good one gives, and the one clear line that each bad one gives."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.check import as_json, as_text, effective
from nodeagent.config import Config, load, parse_override
from nodeagent.config.schema import Leaf, leaves, list_of
from nodeagent.model.errors import Misconfigured
from nodeagent.model.pod import PodRule, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, Mode, Settings
from nodeagent.model.units import format_bytes, parse_bytes


def loaded(tmp_path: Path, text: str, *, env: dict[str, str] | None = None, **overrides: str) -> Config:
    file = tmp_path / "na.toml"
    file.write_text(text)
    return load(str(file), env=env or {}, overrides={k.replace("__", "."): v for k, v in overrides.items()})


def complaint(tmp_path: Path, text: str, *, env: dict[str, str] | None = None, **overrides: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        loaded(tmp_path, text, env=env, **overrides)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    return line.replace(str(tmp_path), "")


def test_nothing_configured_is_the_defaults_of_the_model() -> None:
    config = load(None, env={})
    assert (config.settings, config.policy, config.rules) == (Settings(), Policy(), ())
    assert set(config.origins.values()) == {"default"}


def test_a_later_source_wins_and_each_value_tells_its_origin(tmp_path: Path) -> None:
    text = "[agent]\ntick_s = 2\nscan_s = 40\nslow_tick_s = 7\n"
    env = {"NODEAGENT__AGENT__SCAN_S": "50", "NODEAGENT__AGENT__SLOW_TICK_S": "8", "HOME": "/root"}
    config = loaded(tmp_path, text, env=env, agent__slow_tick_s="9")
    agent = config.settings.agent
    assert (agent.tick_s, agent.scan_s, agent.slow_tick_s) == (2.0, 50.0, 9.0)
    assert config.origins["agent.tick_s"] == f"{tmp_path}/na.toml:2"
    assert config.origins["agent.scan_s"] == "env NODEAGENT__AGENT__SCAN_S"
    assert config.origins["agent.slow_tick_s"] == "--set"
    assert config.origins["agent.checkpoint_s"] == "default"


def test_systemd_directories_are_taken_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    env = {"STATE_DIRECTORY": "/var/lib/na:/var/lib/other", "RUNTIME_DIRECTORY": "/run/na"}
    config = loaded(tmp_path, '[agent]\nrun_dir = "/run/mine"\n', env=env)
    assert config.settings.agent.state_dir == "/var/lib/na"
    assert config.origins["agent.state_dir"] == "env STATE_DIRECTORY"
    assert config.settings.agent.run_dir == "/run/mine"


def test_the_socket_is_in_the_run_directory_unless_told_otherwise() -> None:
    moved = load(None, env={}, overrides={"agent.run_dir": "/tmp/x"})
    assert moved.settings.grpc.address == "unix:/tmp/x/nodeagent.sock"
    told = load(None, env={}, overrides={"agent.run_dir": "/tmp/x", "grpc.address": "127.0.0.1:0"})
    assert told.settings.grpc.address == "127.0.0.1:0"


def test_sections_lists_sizes_and_rules_are_read(tmp_path: Path) -> None:
    text = """
scope = ["nodeagent/**", "jobs/**"]
agent = { mode = "observe", enforce = [] }
journal.max_bytes = "128 MiB"
cpu.floor_cores = 1
[[pods]]
match = "web/*"
qos = "ls"
memory = "1.5Gi"
[[pods]]
match = "jobs/**"
qos = "batch"
cpus = 2
"""
    config = loaded(tmp_path, text)
    assert config.policy.scope == ("nodeagent/**", "jobs/**")
    assert (config.settings.agent.mode, config.settings.agent.enforce) == (Mode.OBSERVE, ())
    assert config.settings.journal.max_bytes == 128 << 20
    assert config.policy.cpu.floor_cores == 1.0
    web, jobs = config.rules
    assert web == PodRule(match="web/*", qos=Qos.LS, memory=3 << 29)
    assert (jobs.qos, jobs.cpus, jobs.memory) == (Qos.BATCH, 2.0, None)
    assert config.origins["pods[1].cpus"].endswith("na.toml:13")


def test_the_environment_can_set_every_kind_of_key() -> None:
    env = {
        "NODEAGENT__AGENT__ENFORCE": "cpu",
        "NODEAGENT__SCOPE": "a/**, b/**",
        "NODEAGENT__GRPC__REFLECTION": "false",
        "NODEAGENT__HTTP__MAX_SERIES": "500",
        "NODEAGENT__JOURNAL__MAX_BYTES": "32MB",
        "NODEAGENT__LOG__LEVEL": "debug",
        "NODEAGENT__CPU__FLOOR_CORES": "0.5",
    }
    config = load(None, env=env)
    assert config.settings.agent.enforce == (Actuator.CPU,)
    assert config.policy.scope == ("a/**", "b/**")
    assert not config.settings.grpc.reflection
    assert config.settings.http.max_series == 500
    assert config.settings.journal.max_bytes == 32_000_000
    assert config.policy.cpu.floor_cores == 0.5


BAD = {
    "[cpu]\n\nflor_cores = 1": "/na.toml:3: unknown key cpu.flor_cores; did you mean cpu.floor_cores?",
    "floor_cores = 1": "/na.toml:1: unknown key floor_cores; did you mean cpu.floor_cores?",
    "[agent]\nfloor_cores = 1": "/na.toml:2: unknown key agent.floor_cores; did you mean cpu.floor_cores?",
    "[agnt]\n": "/na.toml:1: unknown section [agnt]; did you mean [agent]?",
    "[zzz]\n": "/na.toml:1: unknown section [zzz]; there are agent,",
    "cpu = 3": "/na.toml:1: cpu is a section ([cpu]), found 3",
    "[[agent]]\n": "/na.toml:1: agent is a section ([agent]), found [{}]",
    "[agent]\nmode = 'enforced'": (
        "/na.toml:2: agent.mode takes enforce | observe, found 'enforced'; did you mean \"enforce\"?"
    ),
    "[agent]\nmode = true": "/na.toml:2: agent.mode takes enforce | observe, found true",
    "[agent]\nenforce = 'cpu'": "/na.toml:2: agent.enforce takes a list, found 'cpu'",
    "[agent]\nenforce = ['gpu']": "agent.enforce takes any of cpu | nic | memory | io | freeze, found 'gpu'; did you mean \"cpu\"?",
    "[agent]\ntick_s = 0.01": "/na.toml:2: agent.tick_s takes 0.1 to 60, found 0.01",
    "[agent]\ntick_s = '1s'": "/na.toml:2: agent.tick_s takes a number of seconds, found '1s'",
    "[agent]\ntick_s = true": "/na.toml:2: agent.tick_s takes a number of seconds, found true",
    "[agent]\ntick_s = nan": "/na.toml:2: agent.tick_s takes 0.1 to 60, found nan",
    "[agent]\ntick_s = 2026-01-01": "/na.toml:2: agent.tick_s takes a number of seconds, found 2026-01-01",
    "[agent]\ntick_s = {}": "/na.toml:2: agent.tick_s takes a number of seconds, found a section",
    "[cpu]\nfloor_cores = inf": "/na.toml:2: cpu.floor_cores takes at least 0.01, found inf",
    f"[cpu]\nfloor_cores = {10**400}": "cpu.floor_cores takes at least 0.01, found a number of more than 64 bits",
    f"[cpu]\nfloor_cores = 0x{'f' * 9000}": "takes at least 0.01, found a number of more than 64 bits",
    f"[cpu]\nfloor_cores = {'9' * 9000}": "/na.toml: not usable as TOML: Exceeds the limit",
    f"x = {'[' * 5000}{']' * 5000}": "/na.toml: not usable as TOML: ",
    "[pressure]\nls_cpu_stall_ratio = 0": "takes more than 0, at most 1, found 0",
    "[http]\nmax_series = 1e3": "/na.toml:2: http.max_series takes a whole number, found 1000.0",
    "[grpc]\nreflection = 'no'": "/na.toml:2: grpc.reflection takes true or false, found 'no'",
    "[journal]\nmax_bytes = '64 megs'": "/na.toml:2: journal.max_bytes not a size: '64 megs'; write it as",
    "[journal]\nmax_bytes = '1 KiB'": "/na.toml:2: journal.max_bytes takes 1 MiB to 1 TiB, found 1024",
    "[agent]\nstate_dir = 'a\\u0000b'": "/na.toml:2: agent.state_dir takes an absolute path",
    '[agent]\nstate_dir = "a\\u0000b"': "/na.toml:2: agent.state_dir has an unprintable character",
    "[agent]\ntick_s = 1\ntick_s = 2\n": "/na.toml:3:11: Cannot overwrite a value",
    "[agent\n": "/na.toml:1:7: Expected ']' at the end of a table declaration",
    "'cpu.floor_cores' = 1": "/na.toml: unknown key cpu.floor_cores",
    "'\\u001b[31m' = 1": "unknown key",
    "pods = 3": "/na.toml:1: pods is a list of sections: begin each one with [[pods]]",
    "[pods]\n": "/na.toml:1: pods is a list of sections: begin each one with [[pods]]",
    "[[pods]]\nqos = 'ls'": "/na.toml:1: pods[0] has no match",
    "[[pods]]\nmatch = 'a'\nqos = 'lss'": "/na.toml:3: pods[0].qos takes ls | mid | batch, found 'lss'; did you",
    "[[pods]]\nmatch = 'a'\nqos = 'mid'\nnuma = 'bind'": '/na.toml:4: pods[0].numa = "bind" is for qos = "ls", found',
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\nnuma = 'bind'": '/na.toml:4: pods[0].numa = "bind" needs cpus, the number of',
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\nnuma = 'on'": "/na.toml:4: pods[0].numa takes none | bind | exclusive, found 'on'",
    "[[pods]]\nmatch = 'a'\nqos = 'batch'\nhands_off = true": "/na.toml:4: pods[0].hands_off leaves a pod as it",
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\nnuma = 'exclusive'\nhands_off = true": "/na.toml:5: pods[0].hands_off leaves",
    "[agent]\nkubelet_dir = 'kubelet'": "/na.toml:2: agent.kubelet_dir takes an absolute path",
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\nnear = 'eth1'": "/na.toml:4: pods[0].near says where to bind, which numa =",
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\nnuma = 'exclusive'\nnear = 'a b'": (
        '/na.toml:5: pods[0].near takes the name of a NIC or a PCI address, found "a b"'
    ),
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\ncpu = 1": "/na.toml:4: unknown key pods[0].cpu; did you mean pods[0].cpus?",
    "[[pods]]\nmatch = 'a'\nqos = 'ls'\n[[pods]]\nmatch = '/'\nqos = 'ls'": "/na.toml:5: pods[1].match has an empty",
    "scope = ['../x']": 'scope takes globs of cgroup paths, which have no "..", found "../x"',
    f"scope = ['{'a' * 600}']": "scope has a glob longer than 512 characters",
    "[agent]\ntick_s = 5\nslow_tick_s = 2": "/na.toml:3: agent.slow_tick_s = 2 is shorter than agent.tick_s = 5",
    "[agent]\nslow_tick_s = 20\n[capacity]\nstale_after_s = 10": (
        "/na.toml:4: capacity.stale_after_s = 10 must be more than agent.tick_s and"
    ),
    "[interference]\nlease_s = 5\n[agent]\ntick_s = 4": "/na.toml:2: interference.lease_s = 5 must be at least twice agent.tick_s = 4: ticks renew it",
    "[interference]\nrelax_after_s = 100\nrelax_max_s = 50": "/na.toml:3: interference.relax_max_s = 50 is shorter than interference.relax_after_s = 100",
    "[drift]\nbackoff_s = 100\nbackoff_max_s = 60": "/na.toml:3: drift.backoff_max_s = 60 is shorter than drift.backoff_s = 100",
    "[[nics]]\nmatch = 'e'\nlink_bps = 1000": "/na.toml:3: nics[0].link_bps is in bits per second, 1000 would cut",
    "[[nics]]\nmatch = 'e'\nbatch_ratio = 0.5\nbatch_ceiling_ratio = 0.2": (
        "/na.toml:3: nics[0].batch_ratio = 0.5 is more than batch_ceiling_ratio = 0.2"
    ),
    "[[nics]]\nmatch = 'e'\n[[nics]]\nmatch = 'e'": '/na.toml:4: nics[1].match = "e" is that of an entry before',
    "[journal]\nsegment_bytes = '60 MiB'": "/na.toml:2: journal.segment_bytes = 62914560 must be at most half of",
    "[cpu]\npod_floor_cores = 3": "/na.toml:2: cpu.pod_floor_cores = 3 is more than cpu.floor_cores = 0.1",
    "[agent]\nstate_dir = 'var'": '/na.toml:2: agent.state_dir takes an absolute path without "..", found "var"',
    "[agent]\nstate_dir = '/run/nodeagent/'": "/na.toml:2: agent.state_dir must be a directory of its own",
    "[grpc]\naddress = 'unix:x'": '/na.toml:2: grpc.address takes unix:/absolute/path, found "unix:x"',
    f"[grpc]\naddress = 'unix:/{'x' * 107}'": "grpc.address is longer than the 107 bytes of a unix socket's path",
    "[grpc]\naddress = '0.0.0.0:50051'": "grpc.address is plain TCP, so it takes a loopback address only, found",
    "[grpc]\naddress = '::1:50051'": '/na.toml:2: grpc.address takes unix:/path, 127.0.0.1:PORT, [::1]:PORT or ""',
    "[http]\naddress = '9464'": '/na.toml:2: http.address takes ADDRESS:PORT, [IPv6]:PORT or "", found "9464"',
    "[http]\naddress = '127.0.0.1:94640'": "/na.toml:2: http.address takes ADDRESS:PORT",
}


@pytest.mark.parametrize(("text", "line"), BAD.items(), ids=lambda text: text[:40].replace("\n", " "))
def test_a_bad_file_gives_one_line_with_place_finding_and_what_is_right(
    tmp_path: Path, text: str, line: str
) -> None:
    assert line in complaint(tmp_path, text)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "NODEAGENT__AGENT__TICK",
            "1",
            "env NODEAGENT__AGENT__TICK: unknown key agent.tick; did you mean agent.tick_s?",
        ),
        (
            "NODEAGENT__AGENT__TICK_S",
            "fast",
            "env NODEAGENT__AGENT__TICK_S: agent.tick_s takes a number of seconds",
        ),
        ("NODEAGENT__GRPC__REFLECTION", "maybe", "grpc.reflection takes true or false, found 'maybe'"),
        ("NODEAGENT__PODS", "x", "env NODEAGENT__PODS: pods can only be set in the file"),
        ("NODEAGENT__", "x", "env NODEAGENT__: unknown key"),
    ],
)
def test_a_bad_environment_variable_is_named(tmp_path: Path, key: str, value: str, line: str) -> None:
    assert line in complaint(tmp_path, "", env={key: value})


def test_a_bad_override_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path, "", cpu__floor="1").startswith(
        "--set: unknown key cpu.floor; did you mean cpu."
    )
    assert parse_override("a.b = c=d") == ("a.b", "c=d")
    with pytest.raises(Misconfigured, match=r"write it as --set section\.key=value"):
        parse_override("a.b")


def test_what_is_not_a_readable_file_of_text_is_said_so(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(Misconfigured) as caught:
            load(str(path), env={})
        return str(caught.value).replace(str(tmp_path), "")

    assert refused(tmp_path / "absent") == "/absent: cannot be read: No such file or directory"
    assert refused(tmp_path) == ": not a regular file"
    (tmp_path / "binary").write_bytes(b"[cpu]\n\xff\xfe\x00")
    assert refused(tmp_path / "binary") == "/binary:2: not UTF-8 text (byte 0xff)"
    (tmp_path / "huge").write_bytes(b"#" * ((1 << 20) + 1))
    assert refused(tmp_path / "huge") == "/huge: larger than 1 MiB, so hardly a configuration"
    os.mkfifo(tmp_path / "fifo")
    assert refused(tmp_path / "fifo") == "/fifo: not a regular file"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        assert "cannot be read" in refused(tmp_path / "sock")


TOML_LIKE = st.lists(
    st.sampled_from(
        [*leaves(), "[agent]", "[[pods]]", "[cpu]", "=", "'", '"', "[", "]", "{", "}", ",", "\n", "\n"]
    )
    | st.sampled_from(
        ["1", "-1", "0.5", "nan", "inf", "true", "'enforce'", "'64 MiB'", "match = 'a'", "qos = 'ls'"]
    )
    | st.text(max_size=5),
    max_size=30,
)


@given(
    st.one_of(st.binary(max_size=200), TOML_LIKE.map("".join).map(lambda text: text.encode(errors="replace")))
)
def test_garbage_never_gives_anything_but_misconfigured(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage.toml"
    file.write_bytes(garbage)
    try:
        config = load(str(file), env={})
    except Misconfigured as error:
        assert str(error).isprintable()
    else:
        assert isinstance(config.policy, Policy)


ANY_TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.sampled_from(sorted(leaves())), ANY_TOML)
def test_a_leaf_accepts_or_refuses_any_value_in_words(key: str, raw: object) -> None:
    leaf = leaves()[key]
    try:
        value = leaf.accept(raw)
    except ValueError as error:
        assert str(error).isprintable()
    else:
        assert isinstance(value, tuple) == leaf.many


@given(st.sampled_from(sorted(leaves())), st.text(max_size=20))
def test_a_leaf_reads_or_refuses_any_text_in_words(key: str, text: str) -> None:
    try:
        leaves()[key].read(text)
    except ValueError as error:
        assert str(error).isprintable()


def test_every_key_has_words_a_range_and_a_default_that_it_accepts() -> None:
    def raw(leaf: Leaf) -> object:
        return list(leaf.default) if isinstance(leaf.default, tuple) else leaf.default

    for leaf in leaves().values():
        assert leaf.about and leaf.allowed
        if not list_of(leaf.key):
            assert leaf.accept(raw(leaf)) == leaf.default


def test_what_check_prints_is_a_file_with_the_same_effect(tmp_path: Path) -> None:
    text = "scope = ['x\"/**']\n[agent]\nmode = 'observe'\n[[pods]]\nmatch = 'a\\\\b'\nqos = 'mid'\nmemory = '2 GiB'\n"
    first = loaded(tmp_path, text, env={"STATE_DIRECTORY": "/tmp/s"}, cpu__floor_cores="0.25")
    again = loaded(tmp_path, as_text(effective(first)))
    assert (again.settings, again.policy, again.rules) == (first.settings, first.policy, first.rules)


def test_check_shows_value_origin_range_and_meaning() -> None:
    rows = effective(load(None, env={}, overrides={"cpu.floor_cores": "2"}))
    row = next(row for row in rows if row.key == "cpu.floor_cores")
    assert (row.value, row.unit, row.allowed, row.origin) == (2.0, "cores", "at least 0.01", "--set")
    assert "Batch as a whole" in row.about
    parsed = json.loads(as_json(rows))
    assert [entry["key"] for entry in parsed] == [row.key for row in rows]
    assert "max_bytes = 67108864" in as_text(rows) and "= 64 MiB; 1 MiB to 1 TiB" in as_text(rows)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64 MiB", 64 << 20), ("64Mi", 64 << 20), ("1.5 GiB", 3 << 29), ("512M", 512_000_000),
     ("2 GB", 2_000_000_000), ("1k", 1000), ("7B", 7)],
)  # fmt: skip
def test_sizes_are_read_as_in_kubernetes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1 i", "1ib", "MiB", "1e3", "1.2.3", "10 XB", "9999999 PiB", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|kernel"):
        parse_bytes(text)


@given(st.integers(0, 1 << 53))
def test_a_printed_size_reads_back_within_its_precision(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=0.051, abs=0.5)


def test_a_list_on_the_command_line_may_be_written_as_check_prints_it() -> None:
    as_toml = load(None, env={}, overrides={"scope": '["a/**", "b/**"]'}).policy.scope
    assert as_toml == load(None, env={}, overrides={"scope": "a/**, b/**"}).policy.scope == ("a/**", "b/**")
    with pytest.raises(Misconfigured, match=r"scope takes a list such as"):
        load(None, env={}, overrides={"scope": '["a/**"'})
