"""The charts of a run, one for each kind of case: a panel for each group and number of threads, a line for each case.

``python -m benchmarks.chart benchmarks/results.json docs/benchmarks.png`` draws those of a run that was saved.
"""

import json
import sys
from pathlib import Path

# Colours that remain distinct for colour-blind readers (Okabe and Ito), and markers that do without colours.
MINE = "#E69F00"
PEERS = {
    "pytorch": ("o", "#D55E00"),
    "onnxruntime": ("s", "#0072B2"),
    "ndimage": ("^", "#009E73"),
    "signal": ("v", "#000000"),
    "numpy": ("P", "#999999"),
    "skimage": ("X", "#CC79A7"),
    "opencv": ("D", "#56B4E9"),
}
LINE_INCHES = 0.24
# Very small calls have no chart: operations a second mean nothing there.
CHARTS = {
    "layers": ("layer", "deform"),
    "plans": ("plan",),
    "input-gradients": ("input_gradient",),
    "weight-gradients": ("weight_gradient",),
    "images": ("correlate", "sobel", "gaussian", "copy", "volume", "line"),
}


def draw(report, path):
    """Write a PNG for each of CHARTS that there are cases of, `path` with the chart's name added."""
    path = Path(path)
    for name, kinds in CHARTS.items():
        rows = [row for row in report["results"] if row["kind"] in kinds]
        if rows:
            draw_rows(report, rows, path.with_name(f"{path.stem}-{name}{path.suffix}"))


def draw_rows(report, rows, path):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    groups = list(dict.fromkeys(row["group"] for row in rows))
    threads = sorted({row["threads"] for row in rows})
    names = {group: [] for group in groups}
    for row in rows:
        if row["name"] not in names[row["group"]]:
            names[row["group"]].append(row["name"])
    heights = [len(names[group]) + 2.5 for group in groups]
    figure = Figure(figsize=(2 + 5.5 * len(threads), LINE_INCHES * sum(heights) + 1.2), layout="constrained")
    grid = figure.subplots(len(groups), len(threads), squeeze=False, sharey="row", height_ratios=heights)
    for axes_of_group, group in zip(grid, groups, strict=True):
        for axes, number in zip(axes_of_group, threads, strict=True):
            chosen = [row for row in rows if (row["group"], row["threads"]) == (group, number)]
            panel(axes, chosen, names[group])
            axes.set_title(f"{group}, {number} thread{'s' * (number > 1)}", loc="left", fontweight="bold")
        axes_of_group[0].set_yticks(range(len(names[group])), names[group], fontsize=8)
        axes_of_group[0].set_ylim(len(names[group]) - 0.4, -0.6)
    timed = set().union(*(row["gflops"] for row in rows))
    legend = [Patch(color=MINE, label="pyconv"), Line2D([], [], color="black", linewidth=2, label="roofline")]
    legend += [
        Line2D([], [], marker=marker, color=colour, linestyle="", label=peer)
        for peer, (marker, colour) in PEERS.items()
        if peer in timed
    ]
    figure.legend(handles=legend, loc="outside upper center", ncols=len(legend), frameon=False, fontsize=9)
    figure.supxlabel(
        "GFLOP/s: operations of the plain method a second (further right is faster); at the right, how many"
        f" times faster than the best peer\n{report['machine']}, {report['isa']}, {report['date'][:10]}",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


def panel(axes, rows, names):
    """A bar for pyconv, a marker for each peer and a tick for the roofline, case by case."""
    for row in rows:
        place, speeds = names.index(row["name"]), row["gflops"]
        axes.barh(place, speeds["pyconv"], height=0.75, color=MINE)
        axes.vlines(row["roofline_gflops"], place - 0.42, place + 0.42, color="black", linewidth=2)
        for peer, (marker, colour) in PEERS.items():
            if peer in speeds:
                axes.plot(speeds[peer], place, marker, color=colour, markersize=5, markeredgecolor="white")
        ratio = f"{row['times_faster_than'][row['best_peer']]:.2f}"
        axes.annotate(ratio, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_xlim(left=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[2])
