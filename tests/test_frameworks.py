"""The scripts of docs/frameworks.md train, with the fan-in means at rest."""

import pathlib
import re
import subprocess
import sys

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "frameworks.md").read_text()
KERNELS = {
    "linen": ["Conv_0/kernel", "Dense_0/kernel"],
    "nnx": ["conv/kernel", "head/kernel"],
    "haiku": ["conv2_d/w", "linear/w"],
    "equinox": ["layers/0/weight", "layers/3/weight"],
}
WITHOUT_GC = """
import optax, optax_gc, runpy, sys
optax_gc.centralize_gradients = lambda axes: optax.identity()
runpy.run_path(sys.argv[1])
"""


def path(name):
    return DOCS / "frameworks" / f"train_{name}.py"


def run(*args):
    """Returns the losses before and after, and what moved, by kernel."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *args], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(text):
    first, *lines = text.splitlines()
    start, end = re.fullmatch(r"loss (\S+) -> (\S+)", first).groups()
    found = [re.fullmatch(r"(\S+) moved (\S+), its means (\S+)", x) for x in lines]
    moved = {
        kernel: (float(a), float(b)) for kernel, a, b in map(re.Match.groups, found)
    }
    return float(start), float(end), moved


@pytest.mark.parametrize("name", KERNELS)
def test_a_script_trains_and_the_fan_in_means_stay(name):
    start, end, moved = run(path(name))
    if name == "linen":
        assert_shown(start, end, moved)
    assert end < 0.05 < 0.5 < start
    assert list(moved) == KERNELS[name]
    assert all(means < 1e-6 < 0.1 < weights for weights, means in moved.values())


def assert_shown(start, end, moved):
    """The page has what the script printed, but for rounding."""
    shown = parsed(PAGE.split("```text\n")[1].split("```")[0])
    assert (start, end) == pytest.approx(shown[:2], rel=0.01, abs=1e-3)
    assert {k: w for k, (w, _) in moved.items()} == pytest.approx(
        {k: w for k, (w, _) in shown[2].items()}, rel=0.05
    )
    assert all(means < 1e-6 for _, means in shown[2].values())


def test_without_gc_the_fan_in_means_move():
    _, end, moved = run("-c", WITHOUT_GC, path("linen"))
    assert end < 0.05
    assert all(means > 1e-2 for _, means in moved.values())


@pytest.mark.parametrize("name", KERNELS)
def test_a_script_is_short_and_on_the_page(name):
    text = path(name).read_text()
    assert len(text.splitlines()) <= 45
    assert text.startswith(f"# python docs/frameworks/train_{name}.py\n")
    assert f"literalinclude}} frameworks/train_{name}.py" in PAGE
