"""Draws what a service uses over time. Run: ``python plot_soak.py SOAK.json PICTURE.png``; needs matplotlib."""

from __future__ import annotations

from plotting import begin, machine

ROWS = (("pss_mb", "memory (PSS), MB"), ("threads", "threads"), ("descriptors", "descriptors"))


def main() -> None:
    """Draw one picture: a row per quantity, a line per service."""
    found, target, plt = begin()
    figure, every = plt.subplots(len(ROWS), 1, figsize=(10, 8), sharex=True, layout="constrained")
    for axes, (key, label) in zip(every, ROWS, strict=True):
        for name, service in found["services"].items():
            series = service["series"][key]
            requests = f"{service['requests']:,} requests"
            axes.plot([at / 60 for at, _ in series], [value for _, value in series], label=f"{name}, {requests}")
        axes.axvspan(0, found["begin"] / 60, color="#dddddd")
        axes.axvline(found["end"] / 60, color="#888888", linestyle="--", linewidth=1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.25)
    every[0].legend(fontsize=8, loc="lower right")
    every[-1].set_xlabel("minutes; grey: warm-up, dashed: the load ends")
    title = f"{found['minutes']:g} minutes of good, bad, slow and aborted requests, each service all its processes"
    figure.suptitle(f"{title}\n{machine(found)}", fontsize=10)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main()
