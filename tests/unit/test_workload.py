"""What pods are of one workload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.interference.workload import workload


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("kube-system/coredns-5d78c9869d-8xg2f", "kube-system/coredns"),
        ("default/nginx-deployment-66b6c48dd5-7w4zb", "default/nginx-deployment"),
        ("shop/web-7d4b9c6f5d-x2x7q", "shop/web"),
        ("shop/web-canary-84f57bcd7b-kq9zn", "shop/web-canary"),
        ("shop/db-0", "shop/db"),
        ("shop/db-12", "shop/db"),
        ("shop/redis-cluster-2", "shop/redis-cluster"),
        ("kube-system/kube-proxy-9x7gq", "kube-system/kube-proxy"),
        ("monitoring/node-exporter-xv4tm", "monitoring/node-exporter"),
        ("shop/report-28423680-4kz9b", "shop/report"),
        ("shop/index-3-4kz9b", "shop/index"),
        ("kube-system/etcd-master", "kube-system/etcd-master"),
        ("shop/mysql", "shop/mysql"),
        ("shop/my-redis", "shop/my-redis"),
        ("shop/my-nginx", "shop/my-nginx"),
        ("redis-server-4711", "redis-server"),
        ("search", "search"),
        ("stress-ng-31", "stress-ng"),
        ("nginx.service", "nginx.service"),
        ("nodeagent/ls/search", "nodeagent/ls/search"),
        ("nodeagent/ls/search-17", "nodeagent/ls/search"),
        ("-7", "-7"),
        ("shop/-7", "shop/-7"),
        ("", ""),
    ],
)
def test_what_is_generated_is_taken_off_a_name(name: str, of: str) -> None:
    assert workload(name) == of


@given(st.text(max_size=80))
def test_a_workload_is_the_beginning_of_its_pods_names_and_never_empty(name: str) -> None:
    found = workload(name)
    assert name.startswith(found)
    assert found or not name
