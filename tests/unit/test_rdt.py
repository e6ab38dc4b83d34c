"""resctrl's monitoring groups, from trees of files laid out as the kernel does: no CPU here has them."""

from __future__ import annotations

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


def test_a_pod_has_the_sum_over_its_containers_and_domains(tmp_path: Path) -> None:
    groups = RdtGroups(str(resctrl(tmp_path)), shelf())
    seen = groups.read(0.0, {"web": ("aaa", "bbb"), "gold": ("bbb",), "none": ("ccc",)})
    assert seen == {"web": Rdt(121, 1202, 703), "gold": Rdt(1, 2, 3)}


def test_a_domain_that_answers_with_words_makes_the_sum_unknown(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    (root / "mon_groups/aaa/mon_data/mon_L3_01/mbm_total_bytes").write_text("Unavailable\n")
    assert RdtGroups(str(root), shelf()).read(0.0, {"web": ("aaa",)}) == {"web": Rdt(120, None, 700)}


def test_groups_that_come_and_go_are_seen_at_the_next_look(tmp_path: Path) -> None:
    root = resctrl(tmp_path)
    groups = RdtGroups(str(root), shelf())
    assert groups.read(0.0, {"new": ("ccc",)}) == {}
    group(root, "mon_groups/ccc", ("5", "6", "7"))
    assert groups.read(LOOK_S / 2, {"new": ("ccc",)}) == {}
    assert groups.read(LOOK_S, {"new": ("ccc",)}) == {"new": Rdt(5, 6, 7)}


def test_where_resctrl_is_not_mounted_nothing_is_looked_for(tmp_path: Path) -> None:
    groups = RdtGroups(str(tmp_path / "nowhere"), shelf())
    assert not groups.mounted
    assert groups.read(0.0, {"web": ("aaa",)}) == {}
