"""A run shows its layers and epochs, and leaves its record in a folder of its own."""

import os
import pathlib
import re
import subprocess

import jax
import jax.numpy as jnp
import pytest
import rich.console

from train.faults import UsageError
from train.horses import Config
from train.record import console, environment, pictures, workdir
from train.tasks.cnn import CNN


def rendered_text(table):
    console = rich.console.Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_layers_are_listed_in_the_order_they_run_in():
    images = jnp.zeros((1, 300, 300, 3))
    variables = jax.eval_shape(CNN().init, jax.random.key(0), images)
    table = console.layer_table(CNN().apply, variables, images)
    lines = rendered_text(table).split("\n")
    cells = [re.split(r"  +", line.strip()) for line in lines if line]
    assert cells[1] == ["Conv_0", "(149, 149, 16)", "(3, 3, 3, 16)", "448"]
    assert cells[6] == ["Dense_0", "(512,)", "(3136, 512)", "1,606,144"]
    assert cells[8] == ["total", "1,704,097"]


def test_default_workdirs_are_numbered_and_never_shared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claimed = [workdir.claim(Config(gc=gc)) for gc in (True, True, False)]
    assert not [*tmp_path.iterdir()]  # made when there is something to write
    paths = [str(folder.own()) for folder in claimed]
    assert paths == ["runs/gc-seed0", "runs/gc-seed0-2", "runs/no-gc-seed0"]
    for folder in reversed(claimed):
        folder.close()
    assert not [*tmp_path.iterdir()]  # nothing was written into them


def test_an_empty_folder_may_be_a_workdir_and_a_file_may_not(tmp_path):
    with workdir.claim(Config(workdir=tmp_path)) as folder:
        assert folder.own() == tmp_path
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"got .*file, which is a file"):
        workdir.claim(Config(workdir=tmp_path / "file"))


def epoch(number):
    """The metrics of an epoch without evaluation."""
    return {
        "epoch": number, "epoch_seconds": 2.5, "train_loss": 0.6,
        "train_accuracy": 0.7, "test_loss": None, "test_accuracy": None,
    }  # fmt: skip


def test_without_evaluation_dashes_stand_for_the_held_out_metrics():
    line = console.epoch_line("1/10", 2.5, epoch(1), 80)
    assert line.split() == ["1/10", "2.50", "s", "0.6000", "0.7000", "-", "-"]
    assert [len(line)] == [len(text) for text in console.epoch_header(epoch(1), 80)]


def test_curves_are_drawn_without_held_out_metrics_too(tmp_path):
    pictures.plot_run([epoch(1), epoch(2)], tmp_path / "curves.png", "A run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_commit_is_the_one_that_git_names():
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True)
    expected = head.stdout.strip() if head.returncode == 0 else ""
    assert (environment.commit() or "").removesuffix("-dirty") == expected


def test_the_version_is_that_of_the_tree_not_of_what_pip_noted(tmp_path):
    path = tmp_path / "pyproject.toml"
    assert environment.source_version(tmp_path) == {}
    path.write_text('[project]\nname = "optax-gc"\nversion = "7.1"\n')
    assert environment.source_version(tmp_path) == {"optax-gc": "7.1"}
    path.write_text('[project]\nname = "other"\nversion = "7.1"\n')
    assert environment.source_version(tmp_path) == {}


def test_asking_for_the_commit_leaves_the_index_as_it_is(tmp_path, monkeypatch):
    """A killed `git` that was to rewrite it would leave its lock behind."""

    def git(*args):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *who, *args], cwd=tmp_path, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    git("init", "-q")
    file = tmp_path / "file"
    file.write_text("as committed")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    os.utime(file, (1, 1))  # git looks at the file anew, and would note that it has
    index = (tmp_path / ".git" / "index").read_bytes()
    assert environment.commit() == git("rev-parse", "HEAD")
    assert (tmp_path / ".git" / "index").read_bytes() == index
    file.write_text("changed")
    assert environment.commit().endswith("-dirty")
