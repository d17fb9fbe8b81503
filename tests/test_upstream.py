"""What docs/upstream.md says of `optax.centralize`, now and with an argument `axes`."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
GRADS = {"kernel": jnp.array([[1.0, 5.0], [3.0, 9.0]]), "bias": jnp.array([1.0, 2.0])}
CENTRALIZED = {"kernel": jnp.array([[-1.0, -2.0], [1.0, 2.0]]), "bias": GRADS["bias"]}


@pytest.fixture(scope="module")
def script():
    with (
        pytest.MonkeyPatch.context() as patch,
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        lines = []
        patch.setattr("builtins.print", lines.append)
        return runpy.run_path(str(DOCS / "optax_centralize.py")) | {"lines": lines}


@pytest.fixture
def centralize(script):
    return script["centralize"]


def all_but_last(updates):
    return jax.tree.map(lambda g: tuple(range(g.ndim - 1)) or None, updates)


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_centralize_over_axes(centralize):
    grads = {"kernel": jnp.array([[1.0, 5.0], [3.0, 9.0]]), "bias": jnp.ones(2)}
    tx = centralize(axes={"kernel": 0, "bias": None})
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_array_equal(updates["kernel"], [[-1.0, -2.0], [1.0, 2.0]])
    np.testing.assert_array_equal(updates["bias"], grads["bias"])


def test_the_page_has_the_table_that_the_script_prints(script):
    assert len(script["lines"]) == 7
    assert "\n".join(script["lines"]) in (DOCS / "upstream.md").read_text()


def test_the_page_is_half_a_page():
    assert len((DOCS / "upstream.md").read_text().splitlines()) <= 45


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (2, 3, 4), (3, 3, 2, 4)], ids=str)
def test_by_default_nothing_changes(centralize, shape):
    grads = {"w": jax.random.normal(jax.random.key(0), shape)}
    results = [tx.update(grads, ()) for tx in (centralize(), optax.centralize())]
    assert_same(*results)


def test_under_masked_the_axes_must_be_a_function(centralize):
    mask = {"kernel": True, "bias": False}
    tx = optax.masked(centralize(all_but_last), mask)
    assert_same(tx.update(GRADS, tx.init(GRADS))[0], CENTRALIZED)
    tx = optax.masked(centralize({"kernel": 0, "bias": None}), mask)
    with pytest.raises(ValueError, match="structure"):
        tx.update(GRADS, tx.init(GRADS))


def test_under_inject_hyperparams_a_function_must_be_static(centralize):
    static = optax.inject_hyperparams(centralize, static_args="axes")
    tx = static(axes=all_but_last)
    assert_same(tx.update(GRADS, tx.init(GRADS))[0], CENTRALIZED)
    tx = optax.inject_hyperparams(centralize)(axes=all_but_last)  # as of a step count
    assert_same(
        tx.update(GRADS, tx.init(GRADS))[0], optax.centralize().update(GRADS, ())[0]
    )


def test_an_axis_out_of_range_is_an_index_error(centralize):
    with pytest.raises(IndexError):
        centralize({"kernel": 5, "bias": None}).update(GRADS, ())
