"""A program: draws the figures of an experiment, given as the JSON of report.Evaluated, into a PNG.

Arguments: the JSON file, the PNG. Needs matplotlib and nothing of this project: see drawing.py.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

ALONE, TOGETHER = (
    "online alone",
    ("no control", "static weights", "SCHED_IDLE", "koordlet", "nodeagent, by quota", "nodeagent"),
)
COLOURS = {
    "online alone": "#7f7f7f",
    "no control": "#c44e52",
    "static weights": "#dd8452",
    "SCHED_IDLE": "#d9b36c",
    "koordlet": "#8172b3",
    "nodeagent, by quota": "#6bb37a",
    "nodeagent": "#1d6b33",
}
ONLINE, BATCH, QUOTA, SURGE = "#4c72b0", "#e3a857", "#222222", "#bbbbbb"
SLOWEST = 1.15  # of the axis, for what never happened


def main(read: str, write: str) -> None:
    """Draw."""
    told = json.loads(Path(read).read_text())
    plt.rcParams.update(
        {
            "font.size": 10,
            "xtick.labelsize": 9,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
        }
    )
    figure = plt.figure(figsize=(13.0, 13.0), constrained_layout=True)
    grid = figure.add_gridspec(3, 2)
    _tails(figure.add_subplot(grid[0, 0]), told)
    _work(figure.add_subplot(grid[0, 1]), told)
    _utilisation(figure.add_subplot(grid[1, 0]), told)
    _reactions(figure.add_subplot(grid[1, 1]), told)
    left = figure.add_subplot(grid[2, 0])
    _line(left, told, "koordlet")
    _line(figure.add_subplot(grid[2, 1], sharey=left), told, "nodeagent")
    m = told["machine"]
    where = "virtual machine" if m["virtual"] else "bare machine"
    figure.suptitle(
        f"Online services beside Batch that would take every CPU\n{m['cpus']} CPUs, {m['cpu']} ({where}), "
        f"Linux {m['kernel']}, cgroups {m['cgroups']}; {told['rounds']} x {told['window_s']:g} s; "
        "medians and 95 % bootstrap intervals",
        fontsize=12,
    )
    figure.savefig(write, dpi=110)


def _tails(axes: Any, told: dict[str, Any]) -> None:
    """p50, p99 and p99.9 of every variant over those of online alone, one group a service."""
    variants = (ALONE, *TOGETHER)
    tails = ("p50", "p99", "p99.9")
    groups = [(service, tail) for service in told["services"] for tail in tails]
    width = 0.8 / len(variants)
    for n, variant in enumerate(variants):
        cells = [told["rows"][f"{service} {tail}, ms"].get(variant) for service, tail in groups]
        at = [group + (n - (len(variants) - 1) / 2) * width for group in range(len(groups))]
        _bars(axes, at, cells, width, COLOURS[variant], variant)
    axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), [f"{tail}\n{service}" for service, tail in groups])
    axes.set_ylabel("latency from when it was due, ms")
    axes.set_title("What online users feel")
    axes.legend(fontsize=8, ncols=3, loc="upper left")
    axes.set_ylim(top=axes.get_ylim()[1] * 30.0)
    axes.grid(axis="y", alpha=0.3)


def _work(axes: Any, told: dict[str, Any]) -> None:
    row = told["rows"]["Batch work / idle CPU that online left"]
    cells = [row.get(variant) for variant in TOGETHER]
    _labelled(axes, cells, [COLOURS[variant] for variant in TOGETHER], scale=100.0)
    axes.axhline(90.0, color="black", linestyle="--", linewidth=1)
    axes.annotate("to be reached: 90 %", (-0.45, 91.5), fontsize=8)
    axes.set_xticks(range(len(TOGETHER)), _broken(TOGETHER))
    axes.set_ylabel("Batch work, % of the idle CPU that online left")
    axes.set_ylim(0, 118)
    axes.set_title("How much of what online leaves idle becomes Batch work")


def _utilisation(axes: Any, told: dict[str, Any]) -> None:
    variants = (ALONE, *TOGETHER)
    for shift, name, label, shade in (
        (-0.2, "node utilisation", "CPU utilisation", 1.0),
        (0.2, "EMU", "EMU (online + Batch work)", 0.55),
    ):
        cells = [told["rows"][name].get(variant) for variant in variants]
        at = [n + shift for n in range(len(variants))]
        colours = [COLOURS[variant] for variant in variants]
        _labelled(axes, cells, colours, at=at, width=0.38, scale=100.0, alpha=shade)
        axes.bar([0], [0], color="#555555", alpha=shade, label=label)
    axes.axhline(95.0, color="black", linestyle="--", linewidth=1)
    axes.annotate("to be reached: 95 %", (-0.45, 96.5), fontsize=8)
    axes.set_xticks(range(len(variants)), _broken(variants))
    axes.set_ylabel("% of the node's CPU time, of solo peaks")
    axes.set_ylim(0, 125)
    axes.legend(fontsize=8, loc="upper left")
    axes.set_title("How full the node is, and of useful work")


def _reactions(axes: Any, told: dict[str, Any]) -> None:
    kinds = (
        ("surge to Batch's use falling, ms", "its CPU use falls", 1.0),
        ("surge to Batch's quota lower, ms", "its quota is lower", 0.55),
    )
    rows = [told["rows"][name] for name, _, _ in kinds]
    known = [cell["value"] for row in rows for cell in row.values() if cell["value"]]
    never = max(known, default=1000.0) * 3.0
    for shift, (_, label, shade), row in zip((-0.2, 0.2), kinds, rows, strict=True):
        for n, variant in enumerate(TOGETHER):
            cell = row.get(variant)
            if cell is None or cell["repeats"] == 0 or cell["value"] is None:
                axes.text(
                    n + shift, 12, "never", rotation=90, ha="center", va="bottom", fontsize=8, color="#777777"
                )
                continue
            low, high = (cell[key] or never for key in ("low", "high"))
            axes.bar(n + shift, cell["value"], 0.38, color=COLOURS[variant], alpha=shade)
            spread = [[cell["value"] - low], [max(0.0, high - cell["value"])]]
            axes.errorbar(n + shift, cell["value"], spread, color="black", capsize=3, linewidth=1)
            axes.text(
                n + shift, max(cell["value"], high) * 1.1, f"{cell['value']:.0f}", ha="center", fontsize=8
            )
        axes.bar([0], [0], color="#555555", alpha=shade, label=label)
    axes.set_yscale("log")
    axes.set_ylim(10, never * 8.0)
    axes.set_xticks(range(len(TOGETHER)), _broken(TOGETHER))
    axes.set_ylabel("ms after an online surge")
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(axis="y", alpha=0.3)
    axes.set_title("How soon a surge pushes Batch back")


def _line(axes: Any, told: dict[str, Any], variant: str) -> None:
    """One window: online and Batch cores stacked, and Batch's quota."""
    line = told["lines"].get(variant, [])
    cpus = told["machine"]["cpus"]
    at, online, batch = ([moment[n] for moment in line] for n in (0, 1, 2))
    axes.stackplot(at, online, batch, colors=(ONLINE, BATCH), labels=("online pods", "Batch pods"))
    quota = [moment[3] for moment in line]
    if any(each is not None for each in quota):
        axes.step(
            at,
            [cpus if q is None else min(q, cpus) for q in quota],
            where="post",
            color=QUOTA,
            linewidth=1.2,
            label="Batch's quota",
        )
    for number, (begin, end) in enumerate(_surges(told)):
        axes.axvspan(
            begin,
            end,
            color=SURGE,
            alpha=0.5,
            linewidth=0,
            zorder=0,
            label="online surge" if number == 0 else None,
        )
    axes.axhline(cpus, color="black", linewidth=0.8)
    axes.set_xlabel("s of one window")
    axes.set_ylabel("cores")
    axes.set_ylim(0, cpus * 1.3)
    axes.set_xlim(0, told["window_s"])
    axes.legend(fontsize=8, ncols=4, loc="upper left")
    axes.set_title(f"{variant}: one window of the tide")


def _broken(names: tuple[str, ...]) -> list[str]:
    """Names in two lines."""
    return [name.replace(" ", "\n", 1).replace("_", "_\n", 1) for name in names]


def _surges(told: dict[str, Any]) -> list[tuple[float, float]]:
    return [(begin, begin + told["surge_s"]) for begin in told["surge_at_s"]]


def _bars(axes: Any, at: list[float], cells: list[Any], width: float, colour: str, label: str) -> None:
    known = [(x, c) for x, c in zip(at, cells, strict=True) if c and c["value"] is not None]
    values = [c["value"] for _, c in known]
    low = [c["value"] - (c["low"] or c["value"]) for _, c in known]
    high = [max(0.0, (c["high"] or c["value"]) - c["value"]) for _, c in known]
    axes.bar([x for x, _ in known], values, width, color=colour, label=label)
    axes.errorbar(
        [x for x, _ in known], values, [low, high], fmt="none", color="black", capsize=2, linewidth=0.8
    )


def _labelled(
    axes: Any,
    cells: list[Any],
    colours: list[str],
    *,
    at: list[float] | None = None,
    width: float = 0.6,
    scale: float = 1.0,
    alpha: float = 1.0,
) -> None:
    """Bars with their value above."""
    for x, cell, colour in zip(at or list(range(len(cells))), cells, colours, strict=True):
        if cell is None or cell["value"] is None:
            continue
        value, low, high = (
            scale * cell[key] if cell[key] is not None else scale * cell["value"]
            for key in ("value", "low", "high")
        )
        axes.bar(x, value, width, color=colour, alpha=alpha)
        axes.errorbar(x, value, [[value - low], [high - value]], color="black", capsize=3, linewidth=1)
        axes.text(x, high + 1.5, f"{value:.0f}", ha="center", fontsize=8)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
