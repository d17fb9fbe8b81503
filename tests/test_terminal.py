"""What a run and a comparison print fits a terminal, whatever they measure."""

import io

import jax
import jax.numpy as jnp
import pytest
import rich.console

from optax_gc import describe
from train.record import console, statistics, terminal
from train.record.metrics import SCORES
from train.record.overall import Overall
from train.record.reporter import Reporter
from train.tasks.cnn import CNN

WIDTHS = (80, 100, 200)


def values(score, splits=("train", "validation", "test")):
    """A value of each metric of a task."""
    names = [name for split in splits for name in score.names(split)]
    return dict.fromkeys(names, 0.5)


def runs(score):
    found = []
    for arm in ("none", "gradient", "only-first"):
        for seed in range(3):
            summary = values(score) | {"total_seconds": 1234.5}
            epochs = [{"epoch_seconds": 123.4}]
            found.append(statistics.Run(arm, 1e-4, seed, {}, summary, epochs, []))
    return found


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)
def test_tables_of_a_comparison_fit_with_every_value_in_them(score, columns):
    for header, rows in (
        statistics.arms_table(runs(score)),
        statistics.differences_table(runs(score), "none"),
        statistics.raw_table(runs(score)),
        statistics.rates_table(runs(score), score.names("train")[0]),
    ):
        text = terminal.terminal_table(header, rows, columns)
        assert max(map(len, text.splitlines())) <= columns
        kept = [i for i, name in enumerate(header) if name not in terminal.LEFT_OUT]
        for row in rows:
            for i in kept:
                assert terminal.SHORTER.get(row[i], row[i]) in text
        words = " ".join(text.split())
        for i in kept:
            for word in terminal.SHORTER.get(header[i], header[i]).split():
                assert word in words


def test_what_does_not_fit_stands_below_beside_the_first_columns_again():
    header = ["arm", "seed", *("a long heading " + letter for letter in "abc")]
    rows = [["none", "0", "1.00000000", "2.00000000", "3.00000000"]]
    assert terminal.terminal_table(header, rows, 36) == "\n".join(
        [
            "                a long      a long",
            "arm   seed   heading a   heading b",
            "none     0  1.00000000  2.00000000",
            "",
            "                a long",
            "arm   seed   heading c",
            "none     0  3.00000000",
        ]
    )


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)
def test_lines_of_epochs_fit_below_their_heading(score, columns):
    metrics = values(score, ("train", "validation"))
    head = console.epoch_header(metrics, columns)
    line = console.epoch_line("100/100", 1234.5, metrics, columns)
    assert {len(text) for text in head} == {len(line)}
    assert len(line) <= columns


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO], ids=["terminal", "pipe"])
@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)
def test_a_comparison_has_a_heading_and_aligned_rows(score, kind):
    file = kind()
    screen = rich.console.Console(file=file, width=80, color_system=None)
    names = ["none-seed0", "gradient-lr0.0001-seed0", "only-first-lr0.0001-seed0"]
    overall = Overall(screen, 3, names)
    for name in names:
        metrics = values(score, ("train", "validation"))
        overall.epoch(name, {"epoch": 1, "epoch_seconds": 2.5, **metrics}, 10)
    *above, head, first, second, third = file.getvalue().splitlines()
    assert head.split()[:3] == ["run", "epoch", "time"]
    assert "loss" in head
    assert len({len(head), len(first), len(second), len(third)}) == 1
    assert all(line.startswith(" ") for line in above)
    in_terminal = kind is Terminal
    assert len(head) <= 80 or not in_terminal
    if not in_terminal:
        assert head.endswith("left")
        assert all(name in line for name, line in zip(names, (first, second, third),
                                                      strict=True))  # fmt: skip
    assert third.split()[0].endswith(".0001-seed0")


def test_runs_whose_names_are_not_known_are_shown_too():
    file = io.StringIO()
    overall = Overall(rich.console.Console(file=file, width=80), 1)
    metrics = values(SCORES[0], ("train",))
    overall.epoch("none-seed0", {"epoch": 1, "epoch_seconds": 2.5, **metrics}, 10)
    head, line = file.getvalue().splitlines()
    assert len(head) == len(line)
    assert line.startswith("none-seed0 ")


def test_a_name_is_shortened_in_its_middle():
    assert terminal.shortened("none-seed0", 10) == "none-seed0"
    assert terminal.shortened("gradient-lr0.0001-seed0", 18) == "gradie….0001-seed0"
    assert len(terminal.shortened("gradient-lr0.0001-seed0", 17)) == 17


def test_a_report_breaks_its_reasons_between_words():
    def init():
        return CNN().init(jax.random.key(0), jnp.zeros((1, 300, 300, 3)))["params"]

    report = str(describe(jax.eval_shape(init)))
    wide = report.replace("rank 1", "contracted in conv_general_dilated and no more")
    text = terminal.fitted_report(wide, 80)
    assert max(map(len, wide.splitlines())) > 80
    assert max(map(len, text.splitlines())) <= 80
    kept = [word for word in wide.split() if set(word) != {"-"}]
    assert [word for word in text.split() if set(word) != {"-"}] == kept
    assert terminal.fitted_report(report, 300) == report


def test_text_in_brackets_is_shown_and_long_lines_end_between_words():
    file = Terminal()
    screen = rich.console.Console(file=file, width=80, color_system=None)
    reporter = Reporter(None, screen)
    reporter.say("Data     set: " + "word " * 20, indent=" " * 9)
    reporter.warn("pip install -U 'jax[cuda13]'")
    first, second, last = file.getvalue().splitlines()
    assert len(first) <= 80
    assert second.startswith(" " * 9 + "word")
    assert last == "warning: pip install -U 'jax[cuda13]'"
