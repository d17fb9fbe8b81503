"""The scripts of docs/frameworks.md train, with the fan-in means at rest."""

import pathlib
import re
import runpy

import jax
import optax
import pytest

import optax_gc

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "frameworks.md").read_text()
KERNELS = {
    "linen": ["Conv_0/kernel", "Dense_0/kernel"],
    "nnx": ["conv/kernel", "head/kernel"],
    "haiku": ["conv2_d/w", "linear/w"],
    "equinox": ["layers/0/weight", "layers/3/weight"],
}


def path(name):
    return DOCS / "frameworks" / f"train_{name}.py"


@pytest.fixture
def run(capsys):
    """Runs a script; returns the losses before and after, and what moved."""

    def run(name):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            runpy.run_path(str(path(name)))
        return parsed(capsys.readouterr().out)

    return run


def parsed(text):
    first, *lines = text.splitlines()
    start, end = re.fullmatch(r"loss (\S+) -> (\S+)", first).groups()
    found = [re.fullmatch(r"(\S+) moved (\S+), its means (\S+)", x) for x in lines]
    moved = {
        kernel: (float(a), float(b)) for kernel, a, b in map(re.Match.groups, found)
    }
    return float(start), float(end), moved


@pytest.mark.parametrize("name", KERNELS)
def test_a_script_trains_and_the_fan_in_means_stay(name, run):
    start, end, moved = run(name)
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


def test_without_gc_the_fan_in_means_move(run, monkeypatch):
    monkeypatch.setattr(optax_gc, "centralize_gradients", lambda axes: optax.identity())
    _, end, moved = run("linen")
    assert end < 0.05
    assert all(means > 1e-2 for _, means in moved.values())


@pytest.mark.parametrize("name", KERNELS)
def test_a_script_is_short_and_on_the_page(name):
    text = path(name).read_text()
    assert len(text.splitlines()) <= 45
    assert text.startswith(f"# python docs/frameworks/train_{name}.py\n")
    assert f"literalinclude}} frameworks/train_{name}.py" in PAGE
