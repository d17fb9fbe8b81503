"""What all commands share: how they end where their output or their needs are gone."""

import os
import pathlib
import subprocess
import sys

import pytest

from train.record import environment

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name", ["horses", "fashion", "shakespeare", "image", "compare"]
)
def test_a_command_ends_as_all_do(name):
    text = (ROOT / "train" / f"{name}.py").read_text()
    assert text.endswith('if __name__ == "__main__":\n    ends.entry(main)\n')


def test_help_into_a_pipe_that_is_read_no_further_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as unread:
        args = [sys.executable, "-m", "train.horses", "--help"]
        done = subprocess.run(args, stdout=unread, stderr=subprocess.PIPE, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_run_whose_output_is_read_no_further_ends_quietly(small_data_dir, tmp_path):
    args = [
        sys.executable, "-m", "train.horses", "--dataset=pictures", "--batch-size=4",
        f"--data-dir={small_data_dir}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(args, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline().startswith(b"Data")
        process.stdout.close()
        assert process.wait(timeout=120) == 1
        assert process.stderr.read() == b""


def test_without_the_extra_a_command_says_what_to_install():
    """With `-S` there is nothing but the standard library."""
    args = [sys.executable, "-S", "-m", "train.horses"]
    done = subprocess.run(args, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("pip install -e '.[train]'\n")


def test_a_card_that_jax_does_not_see_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    driver = tmp_path / "version"
    assert environment.unused_card(driver) is None
    driver.touch()
    assert environment.unused_card(driver).endswith("pip install -U 'jax[cuda13]'")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # as wanted
    assert environment.unused_card(driver) is None
