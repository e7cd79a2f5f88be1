"""Draws throughput against the 99th percentile. Run: ``python plot.py RESULTS.json PICTURE.png``; needs matplotlib."""

from __future__ import annotations

from typing import Any

from plotting import begin, machine

MARKS = "osD^vP*X<>hp"


def main() -> None:
    """Draw one picture: a line per contender, a point per concurrency."""
    found, target, plt = begin()
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    colours = plt.get_cmap("tab20").colors
    for number, one in enumerate(found["contenders"]):
        cells = sorted((cell for cell in one["cells"] if cell["concurrency"]), key=lambda cell: cell["concurrency"])
        if cells:
            draw(axes, one["name"], cells, colour=colours[number % len(colours)], mark=MARKS[number % len(MARKS)])
    axes.set(xscale="log", yscale="log", xlabel="requests per second", ylabel="99th percentile of latency, ms")
    axes.set_title(found["title"], fontsize=11)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), title="numbers: connections")
    figure.supxlabel(machine(found), fontsize=8)
    figure.savefig(target, dpi=130)


def draw(axes: Any, name: str, cells: list[dict[str, Any]], *, colour: Any, mark: str) -> None:
    """One contender; ours with thicker lines."""
    width = 2.5 if name.startswith("ours") else 1.2
    across, up = [cell["per_second"] for cell in cells], [max(cell["p99_ms"], 0.01) for cell in cells]
    axes.plot(across, up, marker=mark, color=colour, linewidth=width, label=name)
    for cell, x, y in zip(cells, across, up, strict=True):
        axes.annotate(cell["concurrency"], (x, y), fontsize=6, xytext=(3, 3), textcoords="offset points")


if __name__ == "__main__":
    main()
