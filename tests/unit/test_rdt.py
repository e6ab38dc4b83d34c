"""resctrl's monitoring groups, from trees of files laid out as the kernel does: no CPU here has them."""

from __future__ import annotations

import shutil
from pathlib import Path

from nodeagent.kernel.files import Descriptors, Misses, Shelf
from nodeagent.kernel.rdt import LOOK_S, RdtGroups
from nodeagent.model.symptom import Rdt


def shelf() -> Shelf:
    return Shelf(Descriptors(64), Misses())


def group(root: Path, path: str, *domains: tuple[str, str, str]) -> Path:
    for number, values in enumerate(domains):
        where = root / path / "mon_data" / f"mon_L3_{number:02}"
        where.mkdir(parents=True)
        for name, value in zip(("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"), values, strict=True):
            (where / name).write_text(f"{value}\n")
    return root / path


def resctrl(root: Path) -> Path:
    group(root, "", ("9", "9", "9"))
    group(root, "mon_groups/aaa", ("100", "1000", "600"), ("20", "200", "100"))
    group(root, "gold/mon_groups/bbb", ("1", "2", "3"))
    (root / "info").mkdir()
    return root


def looked(root: Path, at: float = 0.0) -> RdtGroups:
    groups = RdtGroups(str(root), shelf())
    groups.look(at)
    return groups


def test_a_pod_has_the_sum_over_its_containers_and_domains(tmp_path: Path) -> None:
    groups = looked(resctrl(tmp_path))
    assert groups.read(("aaa", "bbb")) == Rdt(121, 1202, 703)
    assert groups.read(("bbb", "ccc")) == Rdt(1, 2, 3)
    assert groups.read(("ccc",)) is None


def test_a_domain_that_answers_with_words_makes_the_sum_unknown(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    (root / "mon_groups/aaa/mon_data/mon_L3_01/mbm_total_bytes").write_text("Unavailable\n")
    assert looked(root).read(("aaa",)) == Rdt(120, None, 700)


def test_groups_that_come_and_go_are_seen_at_the_next_look(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    groups = looked(root)
    group(root, "mon_groups/ccc", ("5", "6", "7"))
    groups.look(LOOK_S / 2)
    assert groups.read(("ccc",)) is None
    groups.look(LOOK_S)
    assert groups.read(("ccc",)) == Rdt(5, 6, 7)
    shutil.rmtree(root / "mon_groups/ccc")
    groups.look(2 * LOOK_S)
    assert groups.read(("ccc",)) is None


def test_where_resctrl_is_not_mounted_nothing_is_looked_for(tmp_path: Path) -> None:
    groups = looked(tmp_path / "nowhere")
    assert not groups.mounted
    assert groups.read(("aaa",)) is None
