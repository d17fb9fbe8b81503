"""The page of all comparisons, made from their records.

    python -m train.record.page results/first

rewrites `README.md` and the pictures from the records under `results/first/`.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

from train.config import expanded
from train.record.pictures import plot_training
from train.record.statistics import (
    Run,
    arms_table,
    by_arm,
    differences_table,
    final,
    gathered_runs,
    headings,
    markdown_table,
    measured,
    raw_table,
    spread,
)

PUBLISHED = {  # keras.io/examples/vision/gradient_centralization
    "first": ("without GC", 0.5346, 0.7604),
    "then-gc": ("with GC", 0.4014, 0.8154),
}


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
        f"python -m train.compare --seeds 5 {HELDOUT} --out results/first/rmsprop",
        "none",
    ),
    Section(
        "sgd",
        "SGD with momentum, split by figure",
        "python -m train.compare --optimizer sgd --learning-rate 0.03 --seeds 3 "
        f"{HELDOUT} --out results/first/sgd",
        "none",
    ),
    Section(
        "sgd-0.01",
        "SGD with momentum at a lower rate, split by figure",
        "python -m train.compare --arms none gradient --optimizer sgd "
        f"--learning-rate 0.01 --seeds 3 {HELDOUT} --out results/first/sgd-0.01",
        "none",
    ),
    Section(
        "rmsprop-3e-4",
        "RMSprop at a higher rate, split by figure",
        "python -m train.compare --arms none gradient --learning-rate 3e-4 --seeds 3 "
        f"{HELDOUT} --out results/first/rmsprop-3e-4",
        "none",
    ),
    Section(
        "published",
        "The published protocol, all images for training",
        "python -m train.compare --protocol published --seeds 3 "
        "--dataset horses_or_humans --data-dir full --no-evaluate "
        "--out results/first/published",
        "then-none",
    ),
)


def published_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and rows of the example's figures and its protocol's."""
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
    f"    --first-seed 100 --seeds 1 {HELDOUT} --out results/first/{SEARCH}/$rate\n"
    "done"
)


def search_text(root: pathlib.Path) -> str:
    """Returns the search for SGD's learning rate as Markdown."""
    runs = sorted(gathered_runs(root, SEARCH), key=lambda run: run.rate)
    rows = [
        [
            f"{run.config['config']['learning_rate']:g}",
            *(
                metric.number(run.summary[name])
                for name, metric in measured(runs).items()
            ),
        ]
        for run in runs
    ]
    return "\n\n".join(
        [
            "## The learning rate of SGD",
            f"```sh\n{SEARCH_COMMAND}\n```",
            "`none` at seed 100; the lowest training loss decides:",
            markdown_table(["learning rate", *headings(runs)], rows),
        ]
    )


def page(root: pathlib.Path) -> str:
    """Returns the Markdown page of all comparisons under `root`.

    Its PLAN.md comes first, then FINDING.md, if there is one.
    """
    texts = [root / name for name in ("PLAN.md", "FINDING.md")]
    parts = [path.read_text().strip() for path in texts if path.exists()]
    parts.append(search_text(root))
    for section in SECTIONS:
        if runs := gathered_runs(root, section.folder):
            parts.append(section_text(section, runs))
    return "\n\n".join(parts) + "\n"


def section_text(section: Section, runs: Sequence[Run]) -> str:
    """Returns one comparison as Markdown: command, tables, pictures, every value."""
    pictures = {
        "curves": "Learning curves: mean and one standard deviation over the seeds.",
        "energy": "Share of each kernel's gradient energy that centralizing removes.",
        "drift": "Drift of each kernel's fan-in means from their start, RMS.",
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
        "Training loss and accuracy next to those that the Keras example printed:",
        markdown_table(*published_table(runs)),
    ]


def main() -> None:
    """Rewrites the page and the pictures of the records under a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m train.record.page", description=main.__doc__
    )
    parser.add_argument("root", type=expanded, help="such as results/first")
    root = parser.parse_args().root
    for section in SECTIONS:
        if runs := gathered_runs(root, section.folder):
            plot_training(runs, root / section.folder)
    (root / "README.md").write_text(page(root))


if __name__ == "__main__":
    main()
