"""The recipes of docs/recipes.md do what they say, on more than the page shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_readme
from flax import linen as nn
from flax import nnx

from optax_gc import describe, traced_fan_in

PAGE = test_readme.RECIPES
SNIPPETS = dict(test_readme.snippets(PAGE))  # what is printed, by the code
DECAY, CLIP, MUON, WIDER = SNIPPETS


@pytest.fixture(autouse=True)
def _promoting_as_optax_does():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def ran(code):
    """What a recipe defines, and what it prints."""
    return test_readme.run(code, PAGE)


def names(code):
    return ran(code)[0]


@pytest.mark.parametrize("code", SNIPPETS, ids=["decay", "clip", "muon", "wider"])
def test_a_recipe_prints_what_the_page_shows(code):
    assert ran(code)[1] == SNIPPETS[code]


def in_layers(tree, path):
    return {
        jax.tree_util.keystr(keys, simple=True, separator="/"): leaf
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if path in jax.tree_util.keystr(keys, simple=True, separator="/")
    }


TREES = {
    "dictionary": {"a": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}},
    "list": [jnp.ones((3, 2)), jnp.ones(2)],
    "None inside": {"kernel": jnp.ones((3, 2)), "rest": None},
    "masked": {"kernel": jnp.ones((3, 2)), "rest": optax.MaskedNode()},
    "nnx": nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0))),
}


@pytest.mark.parametrize("params", TREES.values(), ids=TREES.keys())
def test_the_tree_has_the_rows_in_the_structure_of_the_parameters(params):
    report = describe(params)
    assert jax.tree.structure(report.tree) == jax.tree.structure(params)
    assert tuple(jax.tree.leaves(report.tree)) == report.rows
    shapes = jax.tree.map(
        lambda row, leaf: row.shape == leaf.shape, report.tree, params
    )
    assert all(jax.tree.leaves(shapes))


def test_the_tree_has_what_was_measured():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    tree = describe(params, updates=params).tree
    assert (tree["kernel"].removed, tree["bias"].removed) == (1, None)


def test_a_report_can_be_compared_and_hashed_whatever_the_parameters_are():
    params = {"kernel": jnp.ones((3, 2))}
    assert describe(params) == describe(params)
    assert len({describe(params), describe(params)}) == 1


def test_the_kernels_decay_and_nothing_else_does():
    recipe = names(DECAY)
    params, tx = recipe["params"], recipe["tx"]
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(still, tx.init(params), params)
    moved = {path for path, u in in_layers(updates, "").items() if jnp.any(u != 0)}
    assert moved == set(in_layers(params, "kernel"))
    assert len(moved) == 5


def test_what_is_clipped_is_each_output_unit():
    recipe = names(CLIP)
    tx = optax.partition(recipe["per_unit"], recipe["labels"])
    params, grads = recipe["params"], recipe["grads"]
    clipped, _ = tx.update(grads, tx.init(params), params)
    before, after, weights = (
        np.asarray(tree["layers"]) for tree in (grads, clipped, params)
    )
    for layer in range(3):
        for unit in range(64):
            column = layer, slice(None), unit
            most = 0.1 * max(np.linalg.norm(weights[column]), 1e-3)
            factor = min(1, most / np.linalg.norm(before[column]))
            np.testing.assert_allclose(
                after[column], factor * before[column], rtol=1e-5
            )


def test_where_optax_guesses_the_units_right_the_recipe_agrees():
    recipe, key = names(CLIP), jax.random.key(0)
    model = nn.Sequential([nn.Conv(4, (3, 3)), lambda x: x.sum((1, 2)), nn.Dense(5)])
    x = jax.random.normal(key, (2, 6, 6, 3))
    params = model.init(key, x)
    grads = jax.grad(lambda p: jnp.sum(model.apply(p, x) ** 2))(params)
    rows = describe(params, traced_fan_in(model.apply, params, x)).tree
    clips = {row.path: recipe["clip"](row) for row in jax.tree.leaves(rows)}
    labels = jax.tree.map(lambda row: row.path, rows)
    ours, theirs = (
        tx.update(grads, tx.init(params), params)[0]
        for tx in (optax.partition(clips, labels), optax.adaptive_grad_clip(0.1))
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert not jnp.allclose(ours["params"]["layers_2"]["kernel"],
                            grads["params"]["layers_2"]["kernel"])  # fmt: skip


def test_muon_trains_the_kernels_and_adam_the_rest():
    recipe = names(MUON)
    params, updates = recipe["params"], recipe["updates"]
    adam = optax.adam(1e-3, eps_root=0.0, nesterov=True)
    by_adam, _ = adam.update(params, adam.init(params), params)
    ours, theirs = in_layers(updates, ""), in_layers(by_adam, "")
    same = {path for path in ours if jnp.allclose(ours[path], theirs[path], rtol=1e-5)}
    assert same == ours.keys() - in_layers(params, "kernel").keys()
    query = ours["params/layers_1/query/kernel"].reshape(32, 32)
    singular = jnp.linalg.svd(query)[1] / 0.02
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_outputs_move_as_far_in_a_wide_network_as_in_a_narrow_one():
    recipe = names(WIDER)
    narrow = recipe["network"](32)[-1]
    far, even = [], []
    for width in (32, 512):
        apply, params, wide = recipe["network"](width)
        adam = optax.adam(1e-3)
        scaled = optax.chain(adam, recipe["slower_where_wider"](narrow, wide))
        far.append(recipe["distance"](apply, params, adam))
        even.append(recipe["distance"](apply, params, scaled))
    assert far[1] > 3 * far[0]
    assert 0.8 < even[1] / even[0] < 1.25


def test_only_fan_ins_that_grow_slow_a_kernel_down():
    recipe = names(WIDER)
    narrow, wide = recipe["network"](64)[-1], recipe["network"](256)
    tx = recipe["slower_where_wider"](narrow, wide[-1])
    ones = jax.tree.map(jnp.ones_like, wide[1])
    updates, _ = tx.update(ones, tx.init(ones))
    factors = {path: float(u.mean()) for path, u in in_layers(updates, "").items()}
    assert {path for path, factor in factors.items() if factor == 1 / 4} == {
        "params/layers_2/kernel", "params/layers_4/kernel",
    }  # fmt: skip
    assert set(factors.values()) == {1, 1 / 4}
