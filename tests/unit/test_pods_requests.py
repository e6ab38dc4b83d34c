"""Quantities, and what a pod requests altogether."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.pods.document import Amounts, ContainerSpec, PodSpecDocument, Resources
from nodeagent.pods.quantity import quantity
from nodeagent.pods.requests import first_requested, requested


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0), ("250m", 0.25), ("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("+3", 3.0), (2, 2.0), (0.5, 0.5),
        ("100u", 1e-4), ("5n", 5e-9), ("2k", 2000.0), ("3M", 3e6), ("1G", 1e9), ("1Ki", 1024.0),
        ("64Mi", 67108864.0), ("2Gi", 2147483648.0), ("1Ti", float(1 << 40)), ("1e3", 1000.0),
        ("12E2", 1200.0),
        ("1E", 1e18),
        ("1Ei", float(1 << 60)), ("128974848", 128974848.0),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_writes_them(text: str | float, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1 Gi", "1gi", "Gi", "1mm", "0x10", "nan", "inf", "9Ei", "1e99", "1" * 70, "1e3m", "\u0661"],
)
def test_what_is_no_quantity_or_too_much_is_not_told(text: str) -> None:
    assert quantity(text) is None


@given(st.text(max_size=40))
def test_any_text_is_a_bounded_number_or_nothing(text: str) -> None:
    found = quantity(text)
    assert found is None or 0.0 <= found < 2.0**63


def container(cpu: str = "", *, limit: str = "", sidecar: bool = False, **more: str) -> ContainerSpec:
    requests: Amounts = {"cpu": cpu} if cpu else {}
    requests |= {name.replace("_", "/", 1).replace("_", "-"): value for name, value in more.items()}
    limits: Amounts = {"cpu": limit} if limit else {}
    return ContainerSpec("c", Resources(requests, limits), "Always" if sidecar else None)


def cpus(*containers: ContainerSpec, init: tuple[ContainerSpec, ...] = (), **more: object) -> float | None:
    spec = PodSpecDocument(list(containers), list(init), **more)  # type: ignore[arg-type]
    return requested(spec, "cpu")


def test_containers_add_up_and_a_pod_without_a_request_has_none() -> None:
    assert cpus(container("250m"), container("1")) == 1.25
    assert cpus(container(), container()) is None
    assert cpus() is None


def test_init_containers_run_one_by_one_before_the_others() -> None:
    assert cpus(container("1"), init=(container("3"), container("2"))) == 3.0
    assert cpus(container("4"), init=(container("3"),)) == 4.0


def test_sidecars_run_on_beside_the_init_containers_after_them_and_the_containers() -> None:
    sidecar = container("1", sidecar=True)
    assert cpus(container("2"), init=(sidecar, container("3"))) == 4.0
    assert cpus(container("2"), init=(container("3"), sidecar)) == 3.0
    assert cpus(container("5"), init=(sidecar, container("3"))) == 6.0


def test_a_limit_stands_for_a_request_that_is_not_there() -> None:
    assert cpus(container(limit="2"), container("500m", limit="4")) == 2.5


def test_what_the_pod_as_a_whole_asks_comes_before_the_sum_and_overhead_on_top() -> None:
    assert cpus(container("1"), overhead={"cpu": "250m"}) == 1.25
    assert cpus(container("1"), resources=Resources({"cpu": "3"}), overhead={"cpu": "1"}) == 4.0
    assert cpus(container("1"), resources=Resources({"memory": "3Gi"})) == 1.0


def test_the_first_batch_resource_that_is_asked_for_counts() -> None:
    spec = PodSpecDocument([container(kubernetes_io="7"), container()])
    assert first_requested(spec, ("nodeagent.io/batch-cpu",)) is None
    both: Amounts = {"kubernetes.io/batch-cpu": "4000", "nodeagent.io/batch-cpu": 2500}
    spec = PodSpecDocument([ContainerSpec("c", Resources(both))])
    assert first_requested(spec, ("nodeagent.io/batch-cpu", "kubernetes.io/batch-cpu")) == 2500.0
    assert first_requested(spec, ("kubernetes.io/batch-cpu",)) == 4000.0


def test_an_unreadable_amount_is_none() -> None:
    assert cpus(container("a lot"), container("1")) == 1.0
