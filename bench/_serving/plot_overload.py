"""Draws goodput over load. Run: ``python plot_overload.py RESULTS.json PICTURE.png``; needs matplotlib."""

from __future__ import annotations

from typing import Any

from plotting import begin, machine

PARTS = (
    ("good", "good", "#2a7f4f"),
    ("late", "late", "#e0b040"),
    ("expired", "expired (504)", "#c06030"),
    ("shed", "shed (503)", "#7090c0"),
    ("unsent", "unsent", "#bbbbbb"),
    ("lost", "lost", "#000000"),
    ("wrong", "wrong", "#cc0000"),
)


def main() -> None:
    """Draw one picture: per service, what became of the requests of each load."""
    found, target, plt = begin()
    services = found["services"]
    figure, every = plt.subplots(
        1, len(services), figsize=(max(7.0, 1 + 4.2 * len(services)), 4.8), layout="constrained", squeeze=False
    )
    for axes, one in zip(every[0], services, strict=True):
        draw(axes, one, seconds=found["seconds"] * found["rounds"])
    every[0][0].set_ylabel("requests per second")
    handles, labels = every[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=7, columnspacing=1.0)
    figure.suptitle(f"{found['title']}\n{machine(found)}", fontsize=10)
    figure.savefig(target, dpi=130)


def draw(axes: Any, one: dict[str, Any], *, seconds: float) -> None:
    """One service: a bar per load, the parts of it by outcome."""
    names = [f"{level['times']:g}x" for level in one["levels"]]
    below = [0.0] * len(names)
    for key, label, colour in PARTS:
        rates = [level["counts"].get(key, 0) / seconds for level in one["levels"]]
        axes.bar(names, rates, bottom=below, color=colour, label=label)
        below = [low + rate for low, rate in zip(below, rates, strict=True)]
    for number, level in enumerate(one["levels"]):
        axes.annotate(f"{level['of_peak']:.2f}", (number, level["goodput"]), ha="center", va="top", color="white")
    axes.axhline(0.9 * one["peak_goodput"], color="#222222", linestyle="--", linewidth=1)
    workers = f"{one['workers']} worker{'s' if one['workers'] > 1 else ''}"
    axes.set_title(f"{one['workload']}, {workers}, {one['callers']} callers; {one['deadline_ms']:g} ms", fontsize=9)
    axes.set_xlabel("load, as a multiple of what it sustains")
    axes.grid(visible=True, axis="y", alpha=0.25)


if __name__ == "__main__":
    main()
