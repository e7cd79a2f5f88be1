"""Draws each client's calls per second. Run: ``python plot_client.py RESULTS.json PICTURE.png``; needs matplotlib."""

from __future__ import annotations

from plotting import begin, machine


def main() -> None:
    """Draw one picture: a panel per concurrency, the local service only."""
    found, target, plt = begin()
    calls = [one for one in found["calls"] if one["door"] == "service" and one["cells"]]
    levels = [cell["concurrency"] for cell in calls[0]["cells"]]
    figure, panels = plt.subplots(1, len(levels), figsize=(11, 4.5), layout="constrained", squeeze=False)
    for number, (level, axes) in enumerate(zip(levels, panels[0], strict=True)):
        bars = sorted((one["cells"][number]["per_second"], one["way"], one["form"]) for one in calls)
        colours = ["tab:blue" if "ScoringClient" in way else "silver" for _, way, _ in bars]
        shown = axes.barh([f"{way}, {form}" for _, way, form in bars], [rate for rate, _, _ in bars], color=colours)
        axes.bar_label(shown, fmt="{:,.0f}", fontsize=7, padding=2)
        axes.set_title(f"{level} caller{'s' if level > 1 else ''}", fontsize=10)
        axes.set_xlabel("calls per second, one row each")
        axes.margins(x=0.12)
    figure.supxlabel(machine(found), fontsize=8)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main()
