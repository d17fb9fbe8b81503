"""What must hold of the projection, and of weights trained with it."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from optax_gc import all_but_first, all_but_last, centralize, centralize_gradients

LAYOUTS = {
    "dense": ((7, 4), (0,)),
    "torch-dense": ((4, 7), (1,)),
    "conv": ((3, 3, 5, 4), (0, 1, 2)),
    "torch-conv": ((4, 5, 3, 3), (1, 2, 3)),
    "depthwise": ((3, 3, 1, 6), (0, 1, 2)),
    "transposed-conv": ((3, 3, 4, 5), (0, 1, 3)),
    "attention-query": ((8, 2, 3), (0,)),
    "attention-out": ((2, 3, 8), (0, 1)),
    "stack-of-dense": ((2, 7, 4), (1,)),
}
layouts = pytest.mark.parametrize(("shape", "axes"), LAYOUTS.values(), ids=LAYOUTS)
seeds = st.integers(0, 2**32 - 1)
many = hypothesis.settings(derandomize=True, deadline=None, max_examples=15)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0.2, 1, shape).astype(np.float32)


def size(x):
    return np.abs(x).max()


@layouts
@many
@hypothesis.given(seed=seeds)
def test_it_is_the_projection_that_numpy_computes_in_double_precision(
    shape, axes, seed
):
    x = normal(seed, *shape)
    exact = x.astype(np.float64) - x.astype(np.float64).mean(axes, keepdims=True)
    np.testing.assert_allclose(centralize(x, axes), exact, rtol=0, atol=1e-6 * size(x))


@layouts
@many
@hypothesis.given(seed=seeds)
def test_the_mean_is_zero_and_centralizing_twice_changes_nothing(shape, axes, seed):
    x = normal(seed, *shape)
    once = centralize(x, axes)
    twice = centralize(once, axes)
    np.testing.assert_allclose(once.mean(axes), 0, atol=1e-6 * size(x))
    np.testing.assert_allclose(twice, once, rtol=0, atol=1e-6 * size(x))


@layouts
@many
@hypothesis.given(seed=seeds)
def test_it_is_self_adjoint_and_no_longer_than_its_input(shape, axes, seed):
    x, y = normal(seed, 2, *shape)
    px, py = centralize(x, axes), centralize(y, axes)
    np.testing.assert_allclose(np.vdot(px, y), np.vdot(x, py), rtol=0, atol=1e-3)
    assert np.linalg.norm(px) <= np.linalg.norm(x) * (1 + 1e-6)


@layouts
@many
@hypothesis.given(seed=seeds, a=st.floats(-10, 10, width=32), b=st.floats(-10, 10))
def test_it_is_linear(shape, axes, seed, a, b):
    x, y = normal(seed, 2, *shape)
    a, b = np.float32(a), np.float32(b)
    combined = centralize(a * x + b * y, axes)
    apart = a * centralize(x, axes) + b * centralize(y, axes)
    np.testing.assert_allclose(combined, apart, rtol=0, atol=1e-4 * (size(x) + size(y)))


@layouts
def test_its_gradient_is_the_projection_of_the_cotangent(shape, axes):
    x, cotangent = normal(0, 2, *shape)
    _, vjp = jax.vjp(lambda x: centralize(x, axes), x)
    np.testing.assert_allclose(
        vjp(cotangent)[0], centralize(cotangent, axes), atol=1e-6 * size(cotangent)
    )


def papers_rule(weight):
    """The rule of the paper for `(out, in, kh, kw)`, in double precision."""
    weight = weight.astype(np.float64)
    return weight - weight.reshape(len(weight), -1).mean(1)[:, None, None, None]


@pytest.mark.parametrize("policy", [None, all_but_last], ids=["fan_in", "all_but_last"])
def test_a_flax_kernel_gets_the_transpose_of_the_papers_rule(policy):
    hwio = normal(1, 3, 3, 8, 4)
    tx = centralize_gradients(policy) if policy else centralize_gradients()
    got, _ = tx.update({"kernel": hwio}, tx.init({"kernel": hwio}))
    expected = papers_rule(hwio.transpose(3, 2, 0, 1)).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(got["kernel"], expected, atol=1e-6 * size(hwio))


def test_a_torch_weight_gets_the_papers_rule():
    oihw = normal(2, 4, 8, 3, 3)
    tx = centralize_gradients(all_but_first)
    got, _ = tx.update({"w": oihw}, tx.init({"w": oihw}))
    np.testing.assert_allclose(got["w"], papers_rule(oihw), atol=1e-6 * size(oihw))


# Training: a small network, whose gradients have fan-in means that are far from zero.

INPUTS = jnp.abs(normal(1, 32, 6))
TARGETS = 2 + normal(2, 32, 3)
PARAMS = {
    "hidden": {"kernel": jnp.asarray(normal(3, 6, 5) / 3), "bias": jnp.zeros(5)},
    "output": {"kernel": jnp.asarray(normal(4, 5, 3) / 3), "bias": jnp.zeros(3)},
}
STEPS = 60


@pytest.fixture
def standard_promotion():
    """What Adam's bias correction and MultiSteps need: they mix ints and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def loss(params, inputs=INPUTS, targets=TARGETS):
    hidden = jnp.tanh(
        inputs @ params["hidden"]["kernel"] + params["hidden"]["bias"][None]
    )
    output = hidden @ params["output"]["kernel"] + params["output"]["bias"][None]
    return jnp.mean((output - targets) ** 2)


GRADS = jax.grad(loss)(PARAMS)


@jax.jit(static_argnums=0)
def train(tx, params):
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=STEPS)[0][0]


def fan_in_means(params):
    kernels = params["hidden"]["kernel"], params["output"]["kernel"]
    return np.concatenate(
        [np.asarray(kernel, np.float64).mean(0) for kernel in kernels]
    )


def drift(tx):
    return np.abs(fan_in_means(train(tx, PARAMS)) - fan_in_means(PARAMS)).max()


CONSERVING = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "schedule": optax.sgd(lambda step: 0.1 * 0.99 ** step.astype(jnp.float32)),
}


@pytest.mark.parametrize("optimizer", CONSERVING.values(), ids=CONSERVING)
def test_sgd_with_gc_conserves_the_fan_in_means_of_the_weights(optimizer):
    assert drift(optimizer) > 0.05  # without GC they move
    assert drift(optax.chain(centralize_gradients(), optimizer)) < 1e-6


def test_decoupled_decay_shrinks_the_means_by_exactly_its_own_factor():
    decay = 0.3

    def rate(step):
        return 0.1 * 0.99 ** jnp.float32(step)

    tx = optax.chain(
        centralize_gradients(),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(rate),
    )
    factor = np.prod([1 - rate(step) * decay for step in range(STEPS)])
    assert factor < 0.5
    np.testing.assert_allclose(
        fan_in_means(train(tx, PARAMS)), factor * fan_in_means(PARAMS), rtol=1e-4
    )


@pytest.mark.usefixtures("standard_promotion")
def test_adam_does_not_conserve_the_means_with_gc_on_the_gradient():
    assert drift(optax.chain(centralize_gradients(), optax.adam(0.01))) > 1e-3


@pytest.mark.usefixtures("standard_promotion")
def test_adam_conserves_the_means_with_gc_on_the_update_and_its_decay():
    tx = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.3),
        centralize_gradients(),
        optax.scale_by_learning_rate(0.01),
    )
    assert drift(tx) < 1e-6


def apply(tx, grads):
    updates, _ = tx.update(grads, tx.init(grads))
    return updates["hidden"]["kernel"]


def twice(tx, first, second):
    _, state = tx.update(first, tx.init(first))
    return tx.update(second, state)[0]["hidden"]["kernel"]


def test_gc_commutes_with_momentum():
    gc, momentum = centralize_gradients(), optax.trace(0.9)
    other = jax.tree.map(jnp.flip, GRADS)
    before = twice(optax.chain(gc, momentum), GRADS, other)
    after = twice(optax.chain(momentum, gc), GRADS, other)
    np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.usefixtures("standard_promotion")
def test_gc_commutes_with_accumulation():
    def accumulated(first, second):
        def make():
            return optax.MultiSteps(optax.chain(*first), 2, use_grad_mean=True)

        return twice(optax.chain(*second, make()), GRADS, jax.tree.map(jnp.flip, GRADS))

    gc, rest = centralize_gradients(), optax.sgd(1.0)
    inside, outside = accumulated([gc, rest], []), accumulated([rest], [gc])
    np.testing.assert_allclose(inside, outside, atol=1e-6)
    assert np.abs(inside).max() > 0


def test_gc_commutes_with_averaging_over_workers():
    shards = INPUTS.reshape(4, 8, 6), TARGETS.reshape(4, 8, 3)
    grads = jax.vmap(jax.grad(loss), (None, 0, 0))(PARAMS, *shards)
    average = jax.tree.map(lambda g: g.mean(0), grads)
    each = jax.vmap(lambda grads: apply(centralize_gradients(), grads))(grads)
    np.testing.assert_allclose(
        each.mean(0), apply(centralize_gradients(), average), atol=1e-6
    )


def test_gc_commutes_with_loss_scaling():
    gc = centralize_gradients()
    before = apply(optax.chain(optax.scale(1024.0), gc), GRADS)
    after = apply(optax.chain(gc, optax.scale(1024.0)), GRADS)
    np.testing.assert_array_equal(before, after)


# The headlines, against optax.centralize itself.


def regression(tx, steps=200):
    """Trains one Dense(1) and returns its first and last loss."""
    inputs = jnp.asarray(normal(5, 64, 512)) / 20
    targets = jnp.sin(jnp.arange(64.0))[:, None]
    params = {"kernel": jnp.zeros((512, 1)), "bias": jnp.zeros(1)}

    def objective(params):
        output = inputs @ params["kernel"] + params["bias"][None]
        return jnp.mean((output - targets) ** 2)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(objective)(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return params["kernel"], losses


def test_a_dense_layer_of_one_output_trains_with_us_and_not_with_optax():
    kernel, losses = regression(optax.chain(optax.centralize(), optax.sgd(0.5)))
    np.testing.assert_array_equal(kernel, np.zeros((512, 1)))  # never moved
    assert losses[-1] > 0.9 * losses[0]
    kernel, losses = regression(optax.chain(centralize_gradients(), optax.sgd(0.5)))
    assert np.abs(kernel).max() > 0
    assert losses[-1] < 0.1 * losses[0]


def test_optax_centralize_is_a_no_op_on_a_softmax_output_and_we_are_not():
    def objective(params):
        logits = features @ params["kernel"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    features = jnp.asarray(
        np.random.default_rng(6).uniform(0, 1, (32, 20)), jnp.float32
    )
    labels = jnp.arange(32) % 10
    params = {"kernel": jnp.asarray(normal(7, 20, 10)), "bias": jnp.zeros(10)}
    grad = jax.grad(objective)(params)["kernel"]
    np.testing.assert_allclose(grad.sum(1), 0, atol=1e-6)  # over the classes
    theirs = optax.centralize().update(grad, optax.EmptyState())[0]
    ours = centralize(grad, 0)
    np.testing.assert_allclose(theirs, grad, rtol=0, atol=1e-7)
    assert np.linalg.norm(ours - grad) > 0.1 * np.linalg.norm(grad)
