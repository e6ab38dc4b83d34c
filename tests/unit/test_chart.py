"""The chart and the plain manifest: equal, known to Kubernetes' schemas, no more privileged than they say."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from nodeagent import __version__
from nodeagent.config import Config, load
from nodeagent.model.settings import Mode, Settings
from tests.packaged import KUBERNETES
from tests.unit import charts
from tests.unit.charts import ALL_ON, CHART, ENFORCE, ENFORCE_NIC, MANIFEST, OBSERVE, PROFILES

NAMESPACE = ("--set", "namespace.create=true")

# The fields of prometheus-operator's v1 types that are used, with their types: its CRDs are in no package.
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: tuple[str, ...], **properties: object) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT = {"type": "string", "minLength": 1}
_SPAN = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}
OPERATOR = {
    "PodMonitor": _object(
        ("selector", "podMetricsEndpoints"),
        jobLabel=_TEXT,
        selector=_object(("matchLabels",), matchLabels=_STRINGS),
        podMetricsEndpoints={
            "type": "array",
            "items": _object(
                ("port",),
                port=_TEXT,
                path=_TEXT,
                interval=_SPAN,
                honorLabels={"type": "boolean"},
                relabelings={
                    "type": "array",
                    "items": _object(
                        ("targetLabel",),
                        sourceLabels={"type": "array", "items": _TEXT},
                        targetLabel=_TEXT,
                    ),
                },
            ),
        },
    ),
    "PrometheusRule": _object(
        ("groups",),
        groups={
            "type": "array",
            "items": _object(
                ("name", "rules"),
                name=_TEXT,
                rules={
                    "type": "array",
                    "items": {
                        "oneOf": [
                            _object(("record", "expr"), record=_TEXT, expr=_TEXT, labels=_STRINGS),
                            _object(
                                ("alert", "expr", "labels", "annotations"),
                                alert=_TEXT,
                                expr=_TEXT,
                                labels=_STRINGS,
                                annotations=_STRINGS,
                                **{"for": _SPAN},
                            ),
                        ]
                    },
                },
            ),
        },
    ),
}


def configured(tmp_path: Path, *options: str) -> Config:
    """What the agent makes of the rendered configuration and environment."""
    file = tmp_path / "nodeagent.toml"
    file.write_text(charts.only("ConfigMap", *options)["data"]["nodeagent.toml"])
    return load(str(file), env=charts.environment(charts.agent(*options)))


def test_the_plain_manifest_is_what_the_chart_renders() -> None:
    header, _, body = MANIFEST.read_text().partition("---\n")
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"---\n{body}" == charts.rendered(*NAMESPACE), "make manifest"


def test_without_values_the_chart_observes() -> None:
    assert charts.rendered() == charts.rendered(*OBSERVE)


def test_helm_finds_nothing_in_the_chart() -> None:
    for options in PROFILES.values():
        done = charts.helm("lint", "--strict", str(CHART), *options)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_charts_version_is_that_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert KUBERNETES[0] in chart["kubeVersion"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(profile: str, version: str) -> None:
    for document in charts.documents(charts.rendered(*PROFILES[profile])):
        if document["apiVersion"] == "monitoring.coreos.com/v1":
            validator = Draft202012Validator(OPERATOR[document["kind"]])
            assert [error.message for error in validator.iter_errors(document["spec"])] == []
        else:
            assert charts.complaints(document, version) == []


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    document = charts.only("DaemonSet")
    document = json.loads(json.dumps(document))
    document["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privilegedd"] = True
    assert any("privilegedd" in line for line in charts.complaints(document, KUBERNETES[-1]))


def test_kustomize_takes_the_manifest_as_a_base() -> None:
    command: list[str | Path] = [charts.program("kubectl"), "kustomize", str(MANIFEST.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

    def by_kind(text: str) -> list[Any]:
        return sorted(charts.documents(text), key=lambda part: str(part["kind"]))

    assert by_kind(done.stdout) == by_kind(MANIFEST.read_text())


@pytest.mark.parametrize("profile", PROFILES)
def test_the_agent_takes_the_configuration_and_finds_what_it_names(profile: str, tmp_path: Path) -> None:
    options = PROFILES[profile]
    settings = configured(tmp_path, *options).settings
    container, defaults = charts.agent(*options), Settings().agent
    mounted = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert settings.agent.host_root == "/host"
    assert {defaults.state_dir, defaults.run_dir, "/host/proc", "/host/sys"} <= mounted.keys()
    assert container["args"][-1].rpartition("/")[0] in mounted
    writes = settings.agent.mode is Mode.ENFORCE
    assert writes == ("enforce" in profile)
    assert mounted["/host/sys"].get("readOnly", False) is not writes
    assert mounted["/host/proc"]["readOnly"]
    port = container["ports"][0]
    host = "10.0.0.1" if charts.pod(*options).get("hostNetwork") else "0.0.0.0"
    assert settings.http.address == f"{host}:{port['containerPort']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]


@pytest.mark.parametrize("profile", PROFILES)
def test_no_container_has_more_privileges_than_are_listed(profile: str) -> None:
    spec = charts.pod(*PROFILES[profile])
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        security = container["securityContext"]
        assert security["capabilities"]["drop"] == ["ALL"]
        assert "privileged" not in security
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in spec["volumes"]}
    used = [
        m["name"] for c in (*spec["containers"], *spec.get("initContainers", ())) for m in c["volumeMounts"]
    ]
    assert set(used) == volumes


def test_who_observes_has_no_uid_no_capability_and_nothing_of_the_node_to_write_to() -> None:
    spec, container = charts.pod(), charts.agent()
    security = container["securityContext"]
    assert security["runAsUser"] != 0 and security["runAsNonRoot"] is True
    assert "add" not in security["capabilities"]
    assert not spec.get("hostPID") and not spec.get("hostNetwork")
    assert spec["automountServiceAccountToken"] is False
    of_node = {volume["name"] for volume in spec["volumes"] if "hostPath" in volume}
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] in of_node]
    assert of_node == {"proc", "sys"} and all(mount["readOnly"] for mount in mounts)
    # without this, /sys/fs/cgroup, which is mounted below /sys, could be written
    assert {m["name"]: m.get("recursiveReadOnly") for m in mounts}["sys"] == "IfPossible"


def test_each_profile_has_the_capabilities_that_its_file_gives_a_reason_for() -> None:
    for options, name in ((ENFORCE, "values-enforce.yaml"), (ENFORCE_NIC, "values-enforce-nic.yaml")):
        lines = (CHART / name).read_text().splitlines()
        listed = [match[1] for line in lines if (match := re.fullmatch(r"  - ([A-Z_]+)", line))]
        assert charts.agent(*options)["securityContext"]["capabilities"]["add"] == listed
        for at, line in enumerate(lines):
            if re.fullmatch(r"  - [A-Z_]+", line) and not lines[at - 1].startswith("  - "):
                assert lines[at - 1].startswith("  # ")


def roles(*options: str) -> list[tuple[list[str], list[str]]]:
    rules = [d["rules"] for d in charts.documents(charts.rendered(*options)) if d["kind"] == "ClusterRole"]
    return [(rule["resources"], rule["verbs"]) for each in rules for rule in each]


def test_the_api_server_grants_only_what_is_switched_on() -> None:
    publish, kubelet = ("--set", "publish.enabled=true"), ("--set", "kubelet.enabled=true")
    assert roles() == []
    assert roles(*publish) == [(["nodes/status"], ["patch"])]
    assert roles(*kubelet) == [(["nodes/pods"], ["get"])]
    assert roles(*publish, *kubelet) == [(["nodes/pods"], ["get"]), (["nodes/status"], ["patch"])]
    for options in ((), publish, kubelet):
        assert charts.pod(*options)["automountServiceAccountToken"] is bool(roles(*options))


def test_publishing_names_the_node_by_the_downward_api(tmp_path: Path) -> None:
    publish = configured(tmp_path, "--set", "publish.enabled=true").settings.publish
    assert publish.enabled
    assert publish.node_name == "node-1"


@pytest.mark.parametrize("network", ["false", "true"])
def test_on_ipv6_nodes_addresses_are_in_brackets(network: str, tmp_path: Path) -> None:
    options = (
        "--set",
        f"hostNetwork={network}",
        "--set",
        "http.family=IPv6",
        "--set",
        "kubelet.enabled=true",
    )
    for document in charts.documents(charts.rendered(*options)):
        assert charts.complaints(document, KUBERNETES[0]) == []
    variables = charts.environment(charts.agent(*options), node_ip="fd00::1")
    settings = load(None, env=variables).settings
    assert settings.http.address == ("[fd00::1]:9464" if network == "true" else "[::]:9464")
    assert settings.kubernetes.kubelet_url == "https://[fd00::1]:10250"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--set", "config.agent.mode=enforce"), "writable"),
        ((*ENFORCE, "--set", "stateDir="), "stateDir"),
        ((*ENFORCE, "--set", "config.agent.enforce={cpu,nic}"), "hostNetwork"),
        (charts.values_json("config.agent", {"a b": 1}), "no TOML key"),
        (charts.values_json("config", {"a]\nb": {"c": 1}}), "no TOML key"),
        (charts.values_json("config", {"a b": [{"c": 1}]}), "no TOML key"),
        (charts.values_json("config", {"pods": [{"c": 1}, "d"]}), "among tables"),
        (("--set", "config=null"), "writable"),
        (("--set", "publish.enable=true"), "enable"),
        (("--set-string", "publish.enabled=false"), "publish"),
        (("--set", "http.family=IPv7"), "family"),
        (("--set", "kubelet.resource=*"), "resource"),
        (("--set", "image.digest=sha256:12"), "digest"),
        (charts.values_json("config.agent.tick_s", {"a": 1}), "no value"),
    ],
    ids=[
        "read-only",
        "no state",
        "no network",
        "bad key",
        "bad section",
        "bad list",
        "bad entry",
        "no config",
        "unknown word",
        "text for a switch",
        "no family",
        "all resources",
        "no digest",
        "bad value",
    ],
)
def test_values_that_cannot_work_are_refused_with_the_reason(options: tuple[str, ...], why: str) -> None:
    done = charts.helm("template", "nodeagent", str(CHART), *options)
    assert done.returncode != 0
    assert why in done.stderr


def test_any_value_becomes_the_same_value_in_toml() -> None:
    given = {
        "scope": ["a/**", 'quote " backslash \\ hash # é <&>', ""],
        "flag": True,
        "agent": {"mode": "observe", "tick_s": 0.25, "tiny": 1e-7, "whole": 2**40, "below": -3, "none": []},
        "pods": [
            {"match": "a/*", "qos": "ls", "cpus": 1.5},
            {"match": "b", "qos": "batch", "hands_off": False},
        ],
        "nics": [{"match": "eth0", "link_bps": 10_000_000_000}],
    }
    options = charts.values_json("config", given)
    text = charts.only("ConfigMap", *options)["data"]["nodeagent.toml"]
    found = tomllib.loads(text)
    found["agent"].pop("host_root", None)
    found.pop("grpc", None)
    assert found == given
    assert not isinstance(found["agent"]["whole"], float)


def test_any_text_becomes_the_same_text_in_toml() -> None:
    seen = [*range(1, 0x180), 0x2028, 0x2029, 0xFEFF, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF]
    texts = [f"a{chr(code)}b" for code in seen]
    texts += ["\\", '\\\\"', "\\u0041", "\\\x7f\\", "{{ .Values }}", "'''", '"""', "  two lines\n\n", "---"]
    options = charts.values_json("config", {"scope": texts, "nics": [{"match": text} for text in texts]})
    found = tomllib.loads(charts.only("ConfigMap", *options)["data"]["nodeagent.toml"])
    assert found["scope"] == texts
    assert [entry["match"] for entry in found["nics"]] == texts


def test_an_image_may_be_pinned_by_its_digest() -> None:
    digest = f"sha256:{'0f' * 32}"
    image = charts.agent("--set", f"image.digest={digest}", "--set", "image.repository=r.example/na")["image"]
    assert image == f"r.example/na:{__version__}@{digest}"


def test_a_new_configuration_is_a_new_pod() -> None:
    def checksum(*options: str) -> str:
        meta = charts.only("DaemonSet", *options)["spec"]["template"]["metadata"]
        return str(meta["annotations"]["checksum/config"])

    assert checksum() == checksum("--set", "resources.limits.memory=300Mi")
    assert checksum() != checksum("--set", "config.agent.tick_s=2")


def test_what_is_scraped_is_what_the_pod_has() -> None:
    monitor, daemon = charts.only("PodMonitor", *ALL_ON), charts.only("DaemonSet", *ALL_ON)
    labels = daemon["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == "nodeagent"  # the `job` of the rules
    ports = {port["name"] for port in charts.agent(*ALL_ON)["ports"]}
    assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} <= ports
    assert "grpc" in ports
    policy = charts.only("NetworkPolicy", *ALL_ON)["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert {each["port"] for rule in policy["ingress"] for each in rule["ports"]} <= ports


def test_rules_and_dashboard_arrive_as_their_files_are() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    assert charts.only("PrometheusRule", *ALL_ON)["spec"] == rules
    boards = [
        d
        for d in charts.documents(charts.rendered(*ALL_ON))
        if d["metadata"]["name"] == "nodeagent-dashboard"
    ]
    assert json.loads(boards[0]["data"]["nodeagent.json"]) == json.loads(
        (CHART / "files" / "dashboard.json").read_text()
    )
    assert boards[0]["metadata"]["labels"]["grafana_dashboard"] == "1"
