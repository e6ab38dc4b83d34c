"""The chart as helm renders it, and what Kubernetes' own schemas say of that."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.packaged import SCHEMAS, NotToBeHad, tool, unpacked

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "daemonset" / "chart"
MANIFEST = ROOT / "daemonset" / "nodeagent.yaml"
OBSERVE = ("-f", str(CHART / "values-observe.yaml"))
ENFORCE = ("-f", str(CHART / "values-enforce.yaml"))
ENFORCE_NIC = (*ENFORCE, "-f", str(CHART / "values-enforce-nic.yaml"))
ALL_ON = tuple(
    word
    for key in (
        "namespace.create",
        "restore",
        "kubelet.enabled",
        "publish.enabled",
        "monitoring.podMonitor.enabled",
        "monitoring.rules.enabled",
        "monitoring.dashboard.enabled",
        "networkPolicy.enabled",
        "tls.secretName",
    )
    for word in ("--set", f"{key}=true" if key != "tls.secretName" else f"{key}=nodeagent-tls")
)
PROFILES: dict[str, tuple[str, ...]] = {
    "default": (),
    "observe": OBSERVE,
    "enforce": ENFORCE,
    "enforce nic": ENFORCE_NIC,
    "enforce all on": (*ENFORCE_NIC, *ALL_ON),
}

Document = dict[str, Any]


def program(name: str) -> Path:
    """helm or kubectl, or the test is skipped."""
    try:
        return tool(name)
    except NotToBeHad as error:
        pytest.skip(str(error))


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """What helm answers."""
    return subprocess.run([program("helm"), *words], capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def rendered(*options: str) -> str:
    """The chart as text, as `make manifest` renders it but for `options`."""
    done = helm("template", "nodeagent", str(CHART), "--namespace", "nodeagent", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[Document]:
    """The objects of a manifest."""
    return [part for part in yaml.safe_load_all(text) if part]


def only(kind: str, *options: str) -> Document:
    """The one object of this kind, or the first of that of the release's name."""
    found = [part for part in documents(rendered(*options)) if part["kind"] == kind]
    found = [part for part in found if part["metadata"]["name"] == "nodeagent"] if len(found) > 1 else found
    assert len(found) == 1, kind
    return found[0]


def pod(*options: str) -> Document:
    """The DaemonSet's pod."""
    spec: Document = only("DaemonSet", *options)["spec"]["template"]["spec"]
    return spec


def agent(*options: str) -> Document:
    """The container of the agent."""
    (container,) = pod(*options)["containers"]
    found: Document = container
    return found


def environment(container: Document, node_ip: str = "10.0.0.1") -> dict[str, str]:
    """Its variables, with what the kubelet would put in for references."""
    given = {"spec.nodeName": "node-1", "status.hostIP": node_ip}
    found: dict[str, str] = {}
    for each in container.get("env", ()):
        ref = each.get("valueFrom")
        value = given[ref["fieldRef"]["fieldPath"]] if ref else each["value"]
        found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


def complaints(document: Document, version: str) -> list[str]:
    """What the schema of this version of Kubernetes has against an object; unknown fields too."""
    validator = _validator(document["apiVersion"], document["kind"], version)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@functools.cache
def _validator(api: str, kind: str, version: str) -> Draft202012Validator:
    try:
        place = unpacked(SCHEMAS) / version
    except NotToBeHad as error:
        pytest.skip(str(error))
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)  # rbac.authorization.k8s.io/v1 -> rbac-v1
    schema = json.loads((place / f"{kind.lower()}-{group}.json").read_text())
    definitions = Resource.from_contents(json.loads((place / "_definitions.json").read_text()))
    return Draft202012Validator(schema, registry=definitions @ Registry())


def values_json(path: str, value: object) -> Sequence[str]:
    """Options that set one value to anything."""
    return ("--set-json", f"{path}={json.dumps(value)}")
