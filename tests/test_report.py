"""What a run shows and leaves behind, apart from the run itself."""

import pathlib
import re
import subprocess

import jax
import jax.numpy as jnp
import pytest
import rich.console

from train import report, workdir
from train.command import UsageError
from train.config import Config
from train.model import CNN


def rendered_text(table):
    console = rich.console.Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_layers_are_listed_in_the_order_they_run_in():
    images = jnp.zeros((1, 300, 300, 3))
    params = jax.eval_shape(CNN().init, jax.random.key(0), images)["params"]
    lines = rendered_text(report.layer_table(CNN(), params, images.shape[1:])).split(
        "\n"
    )
    cells = [re.split(r"  +", line.strip()) for line in lines if line]
    assert cells[1] == ["Conv_0", "(149, 149, 16)", "(3, 3, 3, 16)", "448"]
    assert cells[6] == ["Dense_0", "(512,)", "(3136, 512)", "1,606,144"]
    assert cells[8] == ["total", "1,704,097"]


def test_default_workdirs_are_numbered_and_never_shared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claimed = [str(workdir.claim(Config(gc=gc))) for gc in (True, True, False)]
    assert claimed == ["runs/gc-seed0", "runs/gc-seed0-2", "runs/no-gc-seed0"]


def test_an_empty_folder_may_be_a_workdir_and_a_file_may_not(tmp_path):
    assert workdir.claim(Config(workdir=tmp_path)) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"got .*file, which is neither"):
        workdir.claim(Config(workdir=tmp_path / "file"))


def test_without_evaluation_dashes_stand_for_the_held_out_metrics():
    line = report.epoch_line(report.Epoch(1, 2.5, 0.6, 0.7, None, None), 10)
    assert line.split() == ["1/10", "2.50", "s", "0.6000", "0.7000", "-", "-"]
    assert len(line) == len(report.epoch_header())


def test_curves_are_drawn_without_held_out_metrics_too(tmp_path):
    history = [report.Epoch(i, 2.5, 0.6, 0.7, None, None) for i in (1, 2)]
    report.plot_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_commit_is_the_one_that_git_names():
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True)
    expected = head.stdout.strip() if head.returncode == 0 else ""
    assert (report.commit() or "").removesuffix("-dirty") == expected
