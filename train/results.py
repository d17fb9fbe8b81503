"""What many runs say together: tables, paired differences, pictures, a page.

    python -m train.results results

writes `README.md` and the pictures anew from the records below `results/`.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

METRICS = {
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "test_loss": "held-out loss",
    "test_accuracy": "held-out accuracy",
}
CONFIDENCE = 0.95
PUBLISHED = {  # keras.io/examples/vision/gradient_centralization
    "first": ("without GC", 0.5346, 0.7604),
    "then-gc": ("with GC", 0.4014, 0.8154),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """The record of one run, read back.

    `epochs` and `diagnostics` have one entry an epoch, with the names of
    metrics.jsonl and diagnostics.jsonl.
    """

    arm: str
    seed: int
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    diagnostics: Sequence[Mapping[str, Any]]


def read_runs(folder: pathlib.Path) -> list[Run]:
    """Returns the finished runs in the folders `ARM-seedN` of `folder`, in order."""
    paths = sorted(path.parent for path in folder.glob("*-seed*/summary.json"))
    runs = [read_run(path) for path in paths]
    return sorted(runs, key=lambda run: (arm_order(run.arm), run.seed))


def read_run(path: pathlib.Path) -> Run:
    """Returns the finished run in a folder that is called `ARM-seedN`."""
    arm, seed = path.name.rsplit("-seed", 1)
    config, summary = (
        json.loads((path / name).read_text())
        for name in ("config.json", "summary.json")
    )
    epochs, diagnostics = (
        [json.loads(line) for line in (path / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "diagnostics.jsonl")
    )
    return Run(arm, int(seed), config, summary, epochs, diagnostics)


def measured(runs: Iterable[Run]) -> dict[str, str]:
    """Returns the metrics that all runs have: without evaluation only half of them."""
    return {
        metric: name
        for metric, name in METRICS.items()
        if all(run.summary[metric] is not None for run in runs)
    }


def arm_order(arm: str) -> int:
    order = ("none", "gradient", "update", "first", "then-none", "then-gc")
    return order.index(arm)


def by_arm(runs: Iterable[Run]) -> dict[str, list[Run]]:
    arms: dict[str, list[Run]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return arms


def final(runs: Sequence[Run], metric: str) -> np.ndarray:
    """Returns each run's last value of a metric, `(runs,)` in float64."""
    return np.array([run.summary[metric] for run in runs], np.float64)


def paired_differences(
    runs: Sequence[Run], baseline: Sequence[Run], metric: str
) -> np.ndarray:
    """Returns run minus baseline of each seed that both have, by ascending seed."""
    ours, theirs = (
        {run.seed: run.summary[metric] for run in arm} for arm in (runs, baseline)
    )
    seeds = sorted(ours.keys() & theirs.keys())
    return np.array([ours[seed] - theirs[seed] for seed in seeds], np.float64)


def confidence_interval(differences: np.ndarray) -> tuple[float, float]:
    """Returns the two-sided 95 % t-interval of the mean of paired differences.

    Its ends are NaN for fewer than two differences.
    """
    from scipy import stats

    if len(differences) < 2:
        return (float("nan"), float("nan"))
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
    return float(low), float(high)


def spread(values: np.ndarray) -> str:
    """Returns mean and standard deviation (of a sample), or the one value."""
    if len(values) < 2:
        return f"{values.mean():.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arms_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows: each arm's final metrics and its times per epoch."""
    header = ["arm", "n", *measured(runs).values(), "seconds an epoch, least", "median"]
    rows = []
    for arm, members in by_arm(runs).items():
        seconds = np.array([e["epoch_seconds"] for run in members for e in run.epochs])
        metrics = [spread(final(members, metric)) for metric in measured(runs)]
        times = [f"{seconds.min():.1f}", f"{np.median(seconds):.1f}"]
        rows.append([arm, str(len(members)), *metrics, *times])
    return header, rows


def differences_table(
    runs: Sequence[Run], baseline: str
) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows: each arm's paired differences against the baseline."""
    header = ["arm", "metric", "n", "mean difference", "95 % interval", "each seed"]
    arms = by_arm(runs)
    others = [arm for arm in arms if arm != baseline] if baseline in arms else []
    rows = []
    for arm in others:
        for metric, name in measured(runs).items():
            values = paired_differences(arms[arm], arms[baseline], metric)
            low, high = confidence_interval(values)
            rows.append(
                [
                    f"{arm} - {baseline}", name, str(len(values)),
                    f"{values.mean():+.4f}",
                    f"[{low:+.4f}, {high:+.4f}]" if len(values) > 1 else "-",
                    ", ".join(f"{value:+.4f}" for value in values),
                ]
            )  # fmt: skip
    return header, rows


def raw_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows: the final metrics of every run."""
    header = ["arm", "seed", *measured(runs).values(), "training seconds"]
    rows = []
    for run in runs:
        metrics = [f"{run.summary[metric]:.4f}" for metric in measured(runs)]
        seconds = f"{run.summary['total_seconds']:.0f}"
        rows.append([run.arm, str(run.seed), *metrics, seconds])
    return header, rows


COLORS = {
    "none": "0.35", "gradient": "C0", "update": "C1",
    "first": "0.7", "then-none": "0.35", "then-gc": "C0",
}  # fmt: skip


def series(runs: Sequence[Run], metric: str) -> np.ndarray:
    """Returns a metric of every epoch, `(runs, epochs)`."""
    return np.array([[epoch[metric] for epoch in run.epochs] for run in runs])


def layer_series(runs: Sequence[Run], name: str) -> dict[str, np.ndarray]:
    """Returns a diagnostic of every layer, averaged over runs, `(epochs,)` each."""
    layers = runs[0].diagnostics[0][name]
    return {
        layer: np.mean([[d[name][layer] for d in run.diagnostics] for run in runs], 0)
        for layer in layers
    }


def tidy(panels: Iterable[Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    for panel in panels:
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.spines[["top", "right"]].set_visible(False)


def plot_curves(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Draws each arm's metrics over the epochs: mean, and a band of one deviation."""
    from matplotlib.figure import Figure

    metrics = measured(runs)
    columns = len(metrics) // 2  # training, and held-out where it was measured
    figure = Figure(figsize=(5 * columns, 6.4), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False).T.flat
    for panel, (metric, name) in zip(panels, metrics.items(), strict=True):
        for arm, members in by_arm(runs).items():
            values = series(members, metric)
            epochs, mean = 1 + np.arange(values.shape[1]), values.mean(0)
            deviation = values.std(0, ddof=1) if len(values) > 1 else 0 * mean
            label = f"{arm} (n = {len(members)})"
            panel.plot(epochs, mean, color=COLORS[arm], label=label)
            panel.fill_between(
                epochs, mean - deviation, mean + deviation,
                color=COLORS[arm], alpha=0.18, linewidth=0,
            )  # fmt: skip
        panel.set_title(name.capitalize())
    tidy(figure.axes)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def plot_layers(
    runs: Sequence[Run], name: str, title: str, path: pathlib.Path, scale: str
) -> None:
    """Draws a diagnostic of each layer over the epochs, one panel an arm."""
    from matplotlib.figure import Figure

    arms = by_arm(runs)
    figure = Figure(figsize=(3.6 * len(arms) + 1.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for panel, (arm, members) in zip(panels, arms.items(), strict=True):
        for i, (layer, values) in enumerate(layer_series(members, name).items()):
            label = layer.removesuffix("/kernel")
            panel.plot(1 + np.arange(len(values)), values, label=label, color=f"C{i}")
        panel.set_title(arm)
        panel.set_yscale(scale)
        if scale == "linear":
            panel.set_ylim(0, 1)
    tidy(panels)
    panels[0].set_ylabel(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center",
                  frameon=False)  # fmt: skip
    figure.savefig(path, dpi=130)


def plot_times(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Draws the seconds of every epoch, a dot each, and their median, per arm."""
    from matplotlib.figure import Figure

    arms = by_arm(runs)
    figure = Figure(figsize=(5, 1 + 0.5 * len(arms)), layout="constrained")
    panel = figure.subplots()
    for row, (arm, members) in enumerate(arms.items()):
        seconds = series(members, "epoch_seconds").ravel()
        height = row + np.linspace(-0.2, 0.2, len(seconds))
        panel.plot(seconds, height, ".", color=COLORS[arm], alpha=0.5)
        panel.plot([np.median(seconds)] * 2, [row - 0.35, row + 0.35], color="black")
    panel.set_yticks(range(len(arms)), list(arms))
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.set_xlabel("training seconds per epoch; the line is the median")
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def plot_all(runs: Sequence[Run], folder: pathlib.Path) -> None:
    """Draws the four pictures of a comparison into its folder."""
    plot_curves(runs, folder / "curves.png")
    plot_layers(
        runs,
        "removed_energy",
        "share of gradient energy",
        folder / "energy.png",
        "linear",
    )
    plot_layers(
        runs, "mean_drift", "drift of fan-in means", folder / "drift.png", "log"
    )
    plot_times(runs, folder / "times.png")


@dataclasses.dataclass(frozen=True)
class Section:
    """A comparison on the page: its folder, its title, its command and its baseline."""

    folder: str
    title: str
    command: str
    baseline: str


HELDOUT = "--dataset horses_or_humans --data-dir heldout"
SECTIONS = (
    Section(
        "rmsprop",
        "RMSprop, split by figure",
        f"python -m train.compare --seeds 5 {HELDOUT} --out results/rmsprop",
        "none",
    ),
    Section(
        "sgd",
        "SGD with momentum, split by figure",
        "python -m train.compare --optimizer sgd --learning-rate 0.03 --seeds 3 "
        f"{HELDOUT} --out results/sgd",
        "none",
    ),
    Section(
        "sgd-0.01",
        "SGD with momentum at a lower rate, split by figure",
        "python -m train.compare --arms none gradient --optimizer sgd "
        f"--learning-rate 0.01 --seeds 3 {HELDOUT} --out results/sgd-0.01",
        "none",
    ),
    Section(
        "rmsprop-3e-4",
        "RMSprop at a higher rate, split by figure",
        "python -m train.compare --arms none gradient --learning-rate 3e-4 --seeds 3 "
        f"{HELDOUT} --out results/rmsprop-3e-4",
        "none",
    ),
    Section(
        "published",
        "The published protocol, all images for training",
        "python -m train.compare --protocol published --seeds 3 "
        "--dataset horses_or_humans --data-dir full --no-evaluate "
        "--out results/published",
        "then-none",
    ),
)


def published_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows: the example's figures beside those of its protocol."""
    header = ["run", "the example's", "loss", "accuracy", "loss here", "accuracy here"]
    rows = []
    for arm, members in by_arm(runs).items():
        name, *figures = PUBLISHED.get(arm, ("(not run)",))
        cells = [f"{figure:.4f}" for figure in figures] or ["", ""]
        metrics = ("train_loss", "train_accuracy")
        ours = [spread(final(members, metric)) for metric in metrics]
        rows.append([arm, name, *cells, *ours])
    return header, rows


SEARCH = "sgd-search"
SEARCH_COMMAND = (
    "for rate in 0.003 0.01 0.03 0.1; do\n"
    "  python -m train.compare --arms none --optimizer sgd --learning-rate $rate \\\n"
    f"    --first-seed 100 --seeds 1 {HELDOUT} --out results/{SEARCH}/$rate\n"
    "done"
)


def search_text(root: pathlib.Path) -> str:
    """Returns the search for SGD's learning rate as Markdown."""
    runs = [read_run(path.parent) for path in root.glob("*/none-seed100/summary.json")]
    runs.sort(key=lambda run: run.config["config"]["learning_rate"])
    rows = [
        [
            f"{run.config['config']['learning_rate']:g}",
            *(f"{run.summary[metric]:.4f}" for metric in METRICS),
        ]
        for run in runs
    ]
    return "\n\n".join(
        [
            "## The learning rate of SGD",
            f"```sh\n{SEARCH_COMMAND}\n```",
            "`none` at seed 100; the lowest training loss decides:",
            markdown_table(["learning rate", *METRICS.values()], rows),
        ]
    )


def page(root: pathlib.Path) -> str:
    """Returns the Markdown page of all comparisons below `root`.

    Its PLAN.md comes first, then FINDING.md, if there is one.
    """
    texts = [root / name for name in ("PLAN.md", "FINDING.md")]
    parts = [path.read_text().strip() for path in texts if path.exists()]
    if (root / SEARCH).is_dir():
        parts.append(search_text(root / SEARCH))
    for section in SECTIONS:
        runs = read_runs(root / section.folder)
        if runs:
            parts.append(section_text(section, runs))
    return "\n\n".join(parts) + "\n"


def section_text(section: Section, runs: Sequence[Run]) -> str:
    """Returns one comparison as Markdown: command, tables, pictures, every value."""
    pictures = {
        "curves": "Learning curves: mean and one standard deviation over the seeds.",
        "energy": "Share of each kernel's gradient energy that centralizing removes.",
        "drift": "Drift of each kernel's fan-in means from their start, RMS.",
        "times": "Training time of every epoch; the line is the median.",
    }
    return "\n\n".join(
        [
            f"## {section.title}",
            f"```sh\n{section.command}\n```",
            "Final epoch, mean ± standard deviation over seeds:",
            markdown_table(*arms_table(runs)),
            *published_text(section, runs),
            "Paired differences, with the 95 % t-interval of their mean:",
            markdown_table(*differences_table(runs, section.baseline)),
            *(
                f"![{text}]({section.folder}/{name}.png)"
                for name, text in pictures.items()
            ),
            "Every run:",
            markdown_table(*raw_table(runs)),
        ]
    )


def published_text(section: Section, runs: Sequence[Run]) -> list[str]:
    if section.folder != "published":
        return []
    return [
        "Training loss and accuracy beside those that the Keras example prints:",
        markdown_table(*published_table(runs)),
    ]


SHORT = {
    "training loss": "loss",
    "training accuracy": "accuracy",
    "held-out loss": "test loss",
    "held-out accuracy": "test accuracy",
    "seconds an epoch, least": "s/epoch",
    "training seconds": "seconds",
    "mean difference": "mean",
}
LEFT_OUT = ("each seed", "median")  # too wide for a terminal


def terminal_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table as aligned lines: the first column left, the others right."""
    kept = [i for i, name in enumerate(header) if name not in LEFT_OUT]
    lines = [[SHORT.get(header[i], header[i]) for i in kept]]
    lines += [[SHORT.get(row[i], row[i]) for i in kept] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main() -> None:
    """Writes the page and the pictures of the records below a folder anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=pathlib.Path, help="the folder, such as results")
    root = parser.parse_args().root
    for section in SECTIONS:
        if runs := read_runs(root / section.folder):
            plot_all(runs, root / section.folder)
    (root / "README.md").write_text(page(root))


if __name__ == "__main__":
    main()
