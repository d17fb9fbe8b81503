"""It goes with the rest of Optax, and under JAX's transformations."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import double_precision

from optax_gc import centralize, centralize_gradients, removed_energy


@pytest.fixture(autouse=True)
def standard_promotion():
    """What Optax's own bias correction needs: it mixes ints and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(0.5, 1, shape), jnp.float32)


PARAMS = {"kernel": normal(0, 6, 4), "bias": normal(1, 4)}
GRADS = {"kernel": normal(2, 6, 4), "bias": normal(3, 4)}
CENTRALIZED = {
    "kernel": GRADS["kernel"] - np.mean(GRADS["kernel"], 0, keepdims=True),
    "bias": GRADS["bias"],
}


def objective(params, obj_fn=None):
    del obj_fn  # what sophia takes, and lbfgs hands on
    return jnp.sum(params["kernel"] ** 2) + jnp.sum(params["bias"] ** 2)


def update(tx, grads=GRADS, params=PARAMS, **extra):
    tx = optax.with_extra_args_support(tx)
    return tx.update(grads, tx.init(params), params, **extra)[0]


def assert_close(got, expected, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol),
        got,
        expected,
    )


def takes(function, name):
    return name in inspect.signature(function).parameters


# From the modules themselves, so that a new optimizer is tested the day it appears.
ALIASES = {
    name: function
    for name, function in vars(optax).items()
    if getattr(function, "__module__", "") == "optax._src.alias"
    and inspect.isfunction(function)
}
CONTRIB = {
    name: function
    for name, function in vars(optax.contrib).items()
    if inspect.isfunction(function) and takes(function, "learning_rate")
}
# What dpsgd takes are not gradients: its leaves have an axis of examples in front.
OPTIMIZERS = {k: v for k, v in (ALIASES | CONTRIB).items() if k != "dpsgd"}


def test_the_optimizers_are_found():
    assert {"adam", "adamw", "lbfgs", "rmsprop", "sgd"} <= set(ALIASES)
    assert {"muon", "prodigy", "schedule_free_sgd"} <= set(CONTRIB)


EXTRA = {"grad": CENTRALIZED, "obj_fn": objective, "value": 3.0, "value_fn": objective}


def build(make):
    """Returns an optimizer with a learning rate, and what else it cannot do without."""
    needed = {
        "base_optimizer": optax.sgd(0.1),
        "key": jax.random.key(0),
        "learning_rate": 0.1,
    }
    return make(**{name: needed[name] for name in needed if takes(make, name)})


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_behind_it_sees_centralized_gradients(make):
    got = update(optax.chain(centralize_gradients(), build(make)), **EXTRA)
    assert_close(got, update(build(make), CENTRALIZED, **EXTRA))


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
@pytest.mark.parametrize("make", ALIASES.values(), ids=ALIASES)
def test_behind_an_optimizer_it_centralizes_the_update(make):
    got = update(optax.chain(build(make), centralize_gradients()), **EXTRA)
    expected = update(build(make), **EXTRA)
    expected["kernel"] -= expected["kernel"].mean(0, keepdims=True)
    assert_close(got, expected)


def test_masked_leaves_are_left_alone():
    mask = {"first": True, "second": False}
    tree = {"first": GRADS, "second": GRADS}
    got = update(optax.masked(centralize_gradients(), mask), tree, tree)
    assert_close(got, {"first": CENTRALIZED, "second": GRADS})


def test_a_kernel_keeps_its_fan_in_when_its_bias_is_masked_away():
    mask = {"kernel": True, "bias": False}
    got = update(optax.masked(centralize_gradients(), mask))
    assert_close(got, CENTRALIZED)


def test_attention_keeps_its_fan_in_when_its_biases_are_masked_away():
    grads = {"query": {"kernel": normal(4, 6, 4, 2), "bias": normal(5, 4, 2)}}
    mask = {"query": {"kernel": True, "bias": False}}
    got = update(optax.masked(centralize_gradients(), mask), grads, grads)
    expected = centralize(grads["query"]["kernel"], 0)
    np.testing.assert_array_equal(got["query"]["kernel"], expected)


def test_it_may_stand_in_one_part_of_a_partition():
    tree = {"first": GRADS, "second": GRADS}
    parts = {"gc": centralize_gradients(), "plain": optax.identity()}
    tx = optax.partition(parts, {"first": "gc", "second": "plain"})
    assert_close(update(tx, tree, tree), {"first": CENTRALIZED, "second": GRADS})


def test_multi_steps_centralizes_the_accumulated_gradient():
    tx = optax.MultiSteps(optax.chain(centralize_gradients(), optax.sgd(1.0)), 2)
    first, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    second, _ = tx.update(jax.tree.map(lambda g: 3 * g, GRADS), state, PARAMS)
    assert_close(first, jax.tree.map(jnp.zeros_like, GRADS))
    assert_close(second, jax.tree.map(lambda g: -2 * g, CENTRALIZED), atol=1e-5)


def test_apply_if_finite_skips_what_is_not_finite():
    tx = optax.apply_if_finite(centralize_gradients(), 5)
    assert_close(update(tx), CENTRALIZED)
    broken = {**GRADS, "kernel": GRADS["kernel"].at[0, 0].set(jnp.nan)}
    assert_close(update(tx, broken), jax.tree.map(jnp.zeros_like, GRADS))


def test_a_chain_with_it_takes_injected_hyperparameters():
    @optax.inject_hyperparams
    def make(learning_rate):
        return optax.chain(centralize_gradients(), optax.sgd(learning_rate))

    tx = make(learning_rate=0.1)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(2.0)
    got, _ = tx.update(GRADS, state, PARAMS)
    assert_close(got, jax.tree.map(lambda g: -2 * g, CENTRALIZED))


def test_it_is_injected_itself_with_static_axes():
    make = optax.inject_hyperparams(centralize_gradients, static_args="axes")
    assert_close(update(make()), CENTRALIZED)


def test_clipping_first_bounds_the_gradient_and_clipping_last_the_centralized_one():
    gc, clip = centralize_gradients(), optax.clip_by_global_norm(0.5)
    last = update(optax.chain(gc, clip))
    first = update(optax.chain(clip, gc))
    assert optax.tree.norm(last) == pytest.approx(0.5)
    assert optax.tree.norm(first) < 0.49
    for updates in (first, last):  # a scalar factor cannot bring the mean back
        np.testing.assert_allclose(updates["kernel"].mean(0), 0, atol=1e-6)


def test_decay_after_it_keeps_its_mean_and_decay_before_it_loses_it():
    gc, decay = centralize_gradients(), optax.add_decayed_weights(0.1)
    mean = 0.1 * PARAMS["kernel"].mean(0)
    after = update(optax.chain(gc, decay))["kernel"].mean(0)
    before = update(optax.chain(decay, gc))["kernel"].mean(0)
    np.testing.assert_allclose(after, mean, atol=1e-6)
    np.testing.assert_allclose(before, 0, atol=1e-6)


def test_the_removed_energy_is_logged_by_snapshot_and_monitor():
    tx = optax.chain(
        optax.snapshot("before", removed_energy),
        centralize_gradients(),
        optax.monitor({"after": removed_energy}),
        optax.sgd(0.1),
    )
    _, state = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    before = optax.tree.get(state, "before")
    assert_close(before, removed_energy(GRADS))
    assert before["kernel"] > 0.05
    assert_close(optax.tree.get(state, "after"), {"kernel": 0, "bias": 0})


# Under JAX's transformations.

GC = centralize_gradients()
TX = optax.chain(GC, optax.sgd(0.1, momentum=0.9))


def step(params, state, scale=1.0):
    grads = jax.grad(lambda p: scale * jnp.sum(jnp.sin(p["kernel"]) * p["bias"][None]))
    updates, state = TX.update(grads(params), state, params)
    return optax.apply_updates(params, updates), state


def test_jit_with_donation_equals_eager():
    expected, _ = step(PARAMS, TX.init(PARAMS))
    params = jax.tree.map(jnp.copy, PARAMS)
    got, _ = jax.jit(step, donate_argnums=(0, 1))(params, TX.init(params))
    assert params["kernel"].is_deleted()
    assert_close(got, expected)


def test_scan_equals_a_loop():
    def body(carry, _):
        return step(*carry), None

    got = jax.lax.scan(body, (PARAMS, TX.init(PARAMS)), length=3)[0]
    expected = PARAMS, TX.init(PARAMS)
    for _ in range(3):
        expected = step(*expected)
    assert_close(got, expected)


def test_vmap_trains_each_member_of_an_ensemble_alone():
    members = [PARAMS, jax.tree.map(jnp.flip, PARAMS)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    got, _ = jax.vmap(step)(stacked, jax.vmap(TX.init)(stacked))
    expected = [step(member, TX.init(member))[0] for member in members]
    assert_close(got, jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected))


def test_an_ensemble_updated_as_one_tree_is_the_same():
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), GRADS)
    each = jax.vmap(lambda grads: GC.update(grads, optax.EmptyState())[0])(stacked)
    assert_close(GC.update(stacked, optax.EmptyState())[0], each)


def test_it_is_differentiated_through_an_unrolled_update():
    def outer(scale):
        params, state = PARAMS, TX.init(PARAMS)
        for _ in range(3):
            params, state = step(params, state, scale)
        return jnp.sum(params["kernel"] ** 2)

    slope = (outer(1.0 + 1e-2) - outer(1.0 - 1e-2)) / 2e-2
    assert jax.grad(outer)(1.0) == pytest.approx(float(slope), rel=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_it_keeps_dtypes_under_strict_promotion(dtype):
    grads = jax.tree.map(lambda g: g.astype(dtype), GRADS)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        got, _ = jax.jit(GC.update)(grads, optax.EmptyState())
    assert jax.tree.map(lambda g: g.dtype, got) == dict.fromkeys(grads, dtype)


def test_it_keeps_double_precision():
    with double_precision():
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
        got = update(GC, {"kernel": kernel}, {"kernel": kernel})["kernel"]
        assert got.dtype == np.float64
        np.testing.assert_allclose(got.mean(0), 0, atol=1e-15)


def test_it_keeps_a_training_step_compiled_once():
    traces = []

    @jax.jit
    def counted(params, state):
        traces.append(None)
        return step(params, state)

    carry = PARAMS, TX.init(PARAMS)
    for _ in range(3):
        carry = counted(*carry)
    assert len(traces) == 1
