"""Keras 3 on JAX: the scripts of docs/keras.md train with the fan-in means at rest."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from conftest import prose

from optax_gc import describe

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


def test_the_page_says_which_kernels_a_guess_reads_wrong():
    page = prose(DOCS / "keras.md")
    table = (DOCS / "keras.md").read_text().split("```text\n")[1].split("\n\n")[0]
    lines = [re.split(r"  +", line) for line in table.splitlines()[2:]]
    shapes = [ast.literal_eval(shape) for _, shape, *_ in lines]
    read = [None if axes == "-" else ast.literal_eval(axes) for _, _, axes, *_ in lines]
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    guesses = describe(params).rows
    wrong = [row for row, axes in zip(guesses, read, strict=True) if row.axes != axes]
    paths = [row.path for row in wrong]
    assert all(row.doubt for row in wrong)
    stated = (
        f"three of these kernels wrong from their shapes: {paths[0]}, {paths[1]} and"
    )
    assert f"{stated} {paths[2]}." in page
    assert len(paths) == 3


@pytest.mark.parametrize("script", ["keras_loop.py", "keras_fit.py"])
def test_a_script_is_whole_and_short(script):
    text = (DOCS / script).read_text()
    assert len(text.splitlines()) <= 30
    assert f"python docs/{script}" in text
    assert (
        f"KERAS_BACKEND=jax python docs/{script}\n" in (DOCS / "keras.md").read_text()
    )
