"""One TOML -> process settings, Policy and pod rules: all checked, frozen, and each value with its origin.

Later sources win: default < systemd's directories < file < NODEAGENT__SECTION__KEY < --set section.key=value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from nodeagent.config.fitted import fit_defaults
from nodeagent.config.limits import check_together
from nodeagent.config.schema import APP, LISTS, NIC, POD, leaves, list_of
from nodeagent.config.sources import Entry, from_env, from_file, from_overrides, from_systemd
from nodeagent.model.app import AppRule
from nodeagent.model.errors import Misconfigured
from nodeagent.model.pod import PodRule
from nodeagent.model.policy import Policy
from nodeagent.model.settings import AgentSettings, Settings

DEFAULT_PATH = "/etc/nodeagent/nodeagent.toml"
DEFAULT = "default"
_SETTINGS = frozenset(Settings.__struct_fields__)


class Config(Struct, frozen=True):
    """`origins` of every key: "default", "FILE:LINE", "env NAME" or "--set". `path`: the file, if any."""

    settings: Settings
    policy: Policy
    rules: tuple[PodRule, ...]
    origins: Mapping[str, str]
    path: str | None = None
    apps: tuple[AppRule, ...] = ()


def load(path: str | None, *, env: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Config:
    """The effective configuration; Misconfigured with one clear line for the first thing that is wrong."""
    values: dict[str, object] = {
        leaf.key: leaf.default for leaf in leaves().values() if not list_of(leaf.key)
    }
    origins = dict.fromkeys(values, DEFAULT)
    in_file = from_file(path) if path is not None else ()
    single = (from_env(env), from_overrides(overrides or {}))
    for entry in itertools.chain(from_systemd(env), in_file, *single):
        if entry.is_text and list_of(entry.key):
            raise Misconfigured(f"{entry.origin}: {list_of(entry.key)} can only be set in the file")
        values[entry.key] = entry.value
        origins[entry.key] = entry.origin
    if origins["grpc.address"] == DEFAULT:
        values["grpc.address"] = f"unix:{values['agent.run_dir']}/nodeagent.sock"
    fit_defaults(values, origins, DEFAULT)
    config = _config(values, origins, path)
    check_together(config.settings, config.policy, config.rules, config.apps, origins)
    return config


def parse_override(text: str) -> tuple[str, str]:
    """("section.key", "value") of `--set section.key=value`; Misconfigured when there is no "="."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise Misconfigured(f"--set {text[:60]!a}: write it as --set section.key=value")
    return key.strip(), value.strip()


def fixed(config: Config) -> tuple[object, ...]:
    """What only a restart changes: all but the policy, the rules, and the pace of ticks and checkpoints."""
    agent, default = config.settings.agent, AgentSettings()
    pace = ("tick_s", "fast_lane_s", "checkpoint_s", "realtime", "on_exit")
    paced = replace(agent, **{name: getattr(default, name) for name in pace})
    return (replace(config.settings, agent=paced), config.policy.pressure.ls_cpu_stall_ratio)


def _config(values: Mapping[str, object], origins: Mapping[str, str], path: str | None) -> Config:
    tree = _tree((key, value) for key, value in values.items() if not list_of(key))
    lists = {
        name: tuple(_tree((k, v) for k, v in values.items() if list_of(k) == name).values()) for name in LISTS
    }
    policy = {NIC: lists[NIC]} | {k: v for k, v in tree.items() if k not in _SETTINGS}
    return Config(
        settings=msgspec.convert({k: v for k, v in tree.items() if k in _SETTINGS}, Settings),
        policy=msgspec.convert(policy, Policy),
        rules=msgspec.convert(lists[POD], tuple[PodRule, ...]),
        origins=origins,
        path=path,
        apps=msgspec.convert(lists[APP], tuple[AppRule, ...]),
    )


def _tree(values: Iterable[tuple[str, object]]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for key, value in values:
        section, dot, name = key.partition(".")
        if not dot:
            tree[key] = value
            continue
        branch = tree.setdefault(section, {})
        assert isinstance(branch, dict)
        branch[name] = value
    return tree


__all__ = ["DEFAULT", "DEFAULT_PATH", "Config", "Entry", "fixed", "load", "parse_override"]
