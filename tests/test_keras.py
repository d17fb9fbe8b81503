"""Keras 3 on JAX: the scripts of docs/keras.md train with the fan-in means at rest."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent
DOCS = FOLDER.parent / "docs"
KINDS = {"Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "EinsumDense", "Dense"}
CENTRALIZED = (
    "keras_loop.py",
    "keras_fit.py",
    "with global_clipnorm",
    "with clipnorm",
    "with gradient_accumulation_steps",
    "with momentum",
    "loaded",
)


@pytest.fixture(scope="module")
def report():
    """What the scripts print, and what moved, by training and layer."""
    done = subprocess.run(
        [sys.executable, FOLDER / "keras_means.py"],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("training", CENTRALIZED)
def test_with_gc_each_kernel_moves_and_its_fan_in_means_do_not(report, training):
    moved = report["moved"][training]
    assert set(moved) == KINDS
    assert all(means < 2e-7 < 1e-5 < weights for weights, means in moved.values())


@pytest.mark.parametrize("script", ["keras_loop.py", "keras_fit.py"])
def test_without_gc_the_fan_in_means_move_with_the_weights(report, script):
    moved = report["moved"][f"{script} without GC"]
    assert set(moved) == KINDS
    assert all(means > 1e-4 for _, means in moved.values())


def test_the_page_shows_what_the_loop_prints(report):
    shown = (DOCS / "keras.md").read_text().split("```text\n")[1].split("```")[0]
    assert shown.startswith("path ")
    assert shown in report["printed"]


@pytest.mark.parametrize("script", ["keras_loop.py", "keras_fit.py"])
def test_a_script_is_whole_and_short(script):
    text = (DOCS / script).read_text()
    assert len(text.splitlines()) <= 30
    assert f"python docs/{script}" in text
