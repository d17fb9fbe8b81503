"""The largest eigenvalues with and without GC, against dense Hessians."""

import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import double_precision
from flax import linen as nn
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from benchmarks.effect import networks
from optax_gc import (
    centralize_gradients,
    fan_in,
    sharpness,
    traced_fan_in,
)

QUADRATIC = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
SIZE = 15


def quadratic(params, hessian, slope):
    x = ravel_pytree(params)[0]
    return x @ hessian @ x / 2 + slope @ x


def measured(hessian, **kwargs):
    slope = jnp.ones(SIZE)
    hessian = jnp.asarray(hessian, jnp.float32)
    return sharpness(quadratic, QUADRATIC, hessian, slope, **kwargs)


def projection(params, axes=fan_in):
    """Returns P as a matrix, from what `centralize_gradients` does to unit vectors."""
    flat, unravel = ravel_pytree(params)
    tx = centralize_gradients(axes)

    def centralized(x):
        return ravel_pytree(tx.update(unravel(x), optax.EmptyState())[0])[0]

    rows = jnp.eye(len(flat), dtype=flat.dtype)
    return np.asarray(jax.jit(jax.vmap(centralized))(rows))


def expected(hessian, p):
    """Returns the largest eigenvalues of H and of PHP on the range of P, in NumPy."""
    hessian, p = np.asarray(hessian, np.float64), np.asarray(p, np.float64)
    values, vectors = np.linalg.eigh(p)
    basis = vectors[:, values > 0.5]
    inside = basis.T @ hessian @ basis
    return np.linalg.eigvalsh(hessian)[-1], np.linalg.eigvalsh(inside)[-1]


def hessian_of(loss, params, *args):
    flat, unravel = ravel_pytree(params)
    return jax.jit(jax.hessian(lambda x: loss(unravel(x), *args)))(flat)


def dense(loss, params, *args, axes=fan_in):
    return expected(hessian_of(loss, params, *args), projection(params, axes))


def random_hessian(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    values = rng.normal(shift, 1, SIZE) * rng.choice([0.1, 1, 10], SIZE)
    return (rotation * values) @ rotation.T


MEANS = np.eye(SIZE) - projection(QUADRATIC)


# Against what is known


def test_of_inputs_with_a_mean_the_ratio_is_that_of_their_covariances():
    x = np.random.default_rng(0).normal(2, 1, (64, 8)).astype(np.float32)

    def loss(params):
        return jnp.mean((x @ params["kernel"]) ** 2) / 2

    got = sharpness(loss, {"kernel": jnp.ones((8, 1))})
    centred = x - x.mean(1, keepdims=True)
    plain = np.linalg.eigvalsh(x.T @ x / 64)[-1]
    centralized = np.linalg.eigvalsh(centred.T @ centred / 64)[-1]
    assert got.plain == pytest.approx(plain, rel=0.02)
    assert got.centralized == pytest.approx(centralized, rel=0.02)
    assert got.ratio == got.plain / got.centralized > 10


@pytest.mark.parametrize("shift", [0, 1, -1], ids=["mixed", "positive", "negative"])
@pytest.mark.parametrize("seed", range(4))
def test_quadratics_have_the_eigenvalues_of_their_matrix(seed, shift):
    hessian = random_hessian(seed, shift)
    got = measured(hessian)
    plain, centralized = expected(hessian, projection(QUADRATIC))
    assert got.plain == pytest.approx(plain, rel=0.02)
    assert got.centralized == pytest.approx(centralized, rel=0.02)
    assert got.error <= 0.02


@hypothesis.settings(derandomize=True, deadline=None, max_examples=40)
@hypothesis.given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-1, 1))
def test_by_interlacing_the_ratio_is_never_below_1(seed, shift):
    hessian = random_hessian(seed, shift)
    got = measured(hessian)
    plain, _ = expected(hessian, projection(QUADRATIC))
    rounding = 1e-5 * np.abs(hessian).sum()
    assert got.ratio >= 1
    assert got.centralized <= got.plain <= plain + rounding


@pytest.mark.parametrize("rounding", [0, 1e-8, -1e-8])
def test_where_only_the_removed_means_curve_upwards_no_step_is_too_long(rounding):
    got = measured(2 * MEANS + rounding * np.eye(SIZE))
    assert (got.centralized, got.ratio) == (0, math.inf)
    assert got.plain == pytest.approx(2)
    assert "no step is too long with it" in str(got)


def test_downward_curvature_within_and_upward_in_the_means_are_told_apart():
    got = measured(3 * MEANS - 2 * (np.eye(SIZE) - MEANS))
    assert got.plain == pytest.approx(3)
    assert got.centralized == pytest.approx(-2)  # not 0, as of PHP with the means
    assert got.ratio == math.inf


@pytest.mark.parametrize("scale", [0, -1], ids=["flat", "downwards"])
def test_where_nothing_curves_upwards_there_is_no_limit_to_lift(scale):
    got = measured(scale * np.eye(SIZE))
    assert (got.plain, got.centralized) == (pytest.approx(scale),) * 2
    assert got.ratio == 1
    assert "nothing curves upwards, so no step is too long" in str(got)


def test_a_fan_in_of_1_leaves_nothing_that_curves():
    kernel = {"kernel": jnp.ones((1, 3))}
    got = sharpness(lambda p: jnp.sum(p["kernel"] ** 2), kernel, axes={"kernel": 0})
    assert (got.plain, got.centralized) == (pytest.approx(2), 0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centralized", [False, True], ids=["plain", "gc"])
def test_descent_diverges_just_above_the_limit_and_not_just_below(
    momentum, centralized
):
    hessian = jnp.asarray(random_hessian(7), jnp.float32)
    hessian = hessian @ hessian
    found = measured(hessian)
    limit = 2 * (1 + momentum) / (found.centralized if centralized else found.plain)

    def start(x):
        return jnp.linspace(-1, 2, x.size).reshape(x.shape)

    def distance(rate):
        gc = centralize_gradients() if centralized else optax.identity()
        tx = optax.chain(gc, optax.sgd(rate, momentum))
        params = jax.tree.map(start, QUADRATIC)

        def step(carry, _):
            grads = jax.grad(quadratic)(carry[0], hessian, jnp.zeros(SIZE))
            updates, state = tx.update(grads, carry[1])
            return (optax.apply_updates(carry[0], updates), state), None

        (last, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=200)
        return float(optax.tree.norm(last))

    assert distance(0.97 * limit) < 100 < distance(1.03 * limit)


# Against dense Hessians of small networks


def network(params, x, y):
    hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"][None])
    return jnp.mean((hidden @ params["out"]["kernel"] - y) ** 2)


def network_params(scale, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"in": {"kernel": (6, 5), "bias": (5,)}, "out": {"kernel": (5, 2)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(scale * rng.normal(size=shape)).astype(dtype),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )


def network_batch(dtype="float32"):
    rng = np.random.default_rng(1)
    x, y = rng.normal(1, 1, (16, 6)), rng.normal(0, 3, (16, 2))
    return jnp.asarray(x).astype(dtype), jnp.asarray(y).astype(dtype)


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_networks_with_negative_curvature_have_their_dense_eigenvalues(scale):
    params, batch = network_params(scale), network_batch()
    hessian = hessian_of(network, params, *batch)
    assert np.linalg.eigvalsh(hessian)[0] < -0.1
    got = sharpness(network, params, *batch)
    plain, centralized = expected(hessian, projection(params))
    assert got.plain == pytest.approx(plain, rel=0.02)
    assert got.centralized == pytest.approx(centralized, rel=0.02)


def test_double_precision_is_kept():
    with double_precision():
        params, batch = network_params(0.5, "float64"), network_batch("float64")
        got = sharpness(network, params, *batch)
        assert got.plain == pytest.approx(dense(network, params, *batch)[0], rel=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_parameters_come_close_to_single_precision(dtype):
    params, batch = network_params(0.5, dtype), network_batch(dtype)
    widen = functools.partial(jax.tree.map, lambda x: x.astype("float32"))
    got = sharpness(network, params, *batch)
    plain, centralized = dense(network, widen(params), *widen(batch))
    assert got.plain == pytest.approx(plain, rel=0.04)
    assert got.centralized == pytest.approx(centralized, rel=0.04)


def test_complex_leaves_are_varied_by_their_real_and_imaginary_parts():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(2, 4, 2)) + 1j * rng.normal(size=(2, 4, 2))
    kernel, x = jnp.asarray(numbers, jnp.complex64)

    def loss(params):
        return jnp.mean(jnp.abs(jnp.sin(x.T @ params["kernel"])) ** 2)

    def loss_of_parts(parts):
        return loss({"kernel": jax.lax.complex(parts["real"], parts["imag"])})

    parts = {"real": kernel.real, "imag": kernel.imag}
    got = sharpness(loss, {"kernel": kernel})
    plain, centralized = dense(loss_of_parts, parts)
    assert got.plain == pytest.approx(plain, rel=0.02)
    assert got.centralized == pytest.approx(centralized, rel=0.02)


class Normalized(nn.Module):
    """Every kernel follows a LayerNorm without scale and bias."""

    @nn.compact
    def __call__(self, x):
        for width in (8, 8, 3):
            x = nn.LayerNorm(use_scale=False, use_bias=False, epsilon=0)(x)
            x = nn.Dense(width)(x)
            x = nn.relu(x) if width == 8 else x
        return x


def test_where_every_kernel_follows_a_layer_norm_the_ratio_is_1():
    x = jnp.asarray(np.random.default_rng(0).normal(3, 1, (16, 6)), jnp.float32)
    model = Normalized()
    params = jax.jit(model.init)(jax.random.key(1), x)["params"]

    def loss(params, x):
        logits = model.apply({"params": params}, x)
        labels = jnp.arange(16) % 3
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    assert sharpness(loss, params, x).ratio == pytest.approx(1, abs=0.005)


# What is varied, and along which axes


def test_what_is_no_floating_array_is_held_fixed():
    params, batch = network_params(0.5), network_batch()
    whole = sharpness(network, params, *batch)
    others = {
        "none": None,
        "masked": optax.MaskedNode(),
        "steps": jnp.arange(3),
        "key": jax.random.key(0),
        "rate": 0.5,
        "name": "net",
        "activation": jnp.tanh,
        "empty": jnp.zeros((0, 3)),
    }

    def loss(params, x, y, flag, config):
        assert flag is True
        assert config == {"power": 2, "unhashable": {1}}
        assert params["rate"] == 0.5
        assert params["activation"] is jnp.tanh
        net = {"in": params["in"], "out": params["out"]}
        return network(net, x, y)

    got = sharpness(
        loss, {**params, **others}, *batch, True, {"power": 2, "unhashable": {1}}
    )
    assert got.plain == pytest.approx(whole.plain, rel=0.01)
    assert got.centralized == pytest.approx(whole.centralized, rel=0.01)


def test_numpy_parameters_are_taken():
    params, batch = network_params(0.5), network_batch()
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    got = sharpness(network, arrays, *batch)
    assert got == sharpness(network, params, *batch)


def test_a_leaf_that_is_masked_away_is_not_varied():
    params, batch = network_params(0.5), network_batch()

    def loss(free, x, y):
        return network({"in": params["in"], "out": free["out"]}, x, y)

    masked = sharpness(loss, {"in": None, "out": params["out"]}, *batch)
    alone = dense(loss, {"out": params["out"]}, *batch)
    assert (masked.plain, masked.centralized) == pytest.approx(alone, rel=0.02)


AXES = {
    "traced": traced_fan_in(network, network_params(1.0), *network_batch()),
    "pattern": {"in/kernel": 1},
    "left-alone": {"in/*": None},
    "policy": lambda tree: jax.tree.map(lambda x: 0 if x.ndim == 2 else None, tree),
}


@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_it_takes_the_axes_that_the_transform_takes(axes):
    params, batch = network_params(0.5), network_batch()
    got = sharpness(network, params, *batch, axes=axes)
    plain, centralized = dense(network, params, *batch, axes=axes)
    assert got.plain == pytest.approx(plain, rel=0.02)
    assert got.centralized == pytest.approx(centralized, rel=0.02)


def test_it_warns_as_the_transform_does_and_the_ratio_is_1():
    params, batch = network_params(0.5), network_batch()
    with pytest.warns(UserWarning, match="None of the 3 leaves is centralized") as seen:
        got = sharpness(network, params, *batch, axes={"*": None})
    assert seen[0].filename == __file__
    assert got.ratio == 1
    with pytest.warns(UserWarning, match="'haed/\\*' decides on no leaf"):
        sharpness(network, params, *batch, axes={"haed/*": None})


# What it costs


@functools.cache
def pictures():
    return networks.draw(8)


def text_case():
    text = np.frombuffer((networks.ROOT / "LICENSE").read_bytes(), np.uint8)
    inputs, labels = networks.text_batch(text.astype(np.int32), 0)
    return networks.Decoder(nn.LayerNorm), inputs[:4], labels[:4]


def image_case():
    images, labels = pictures()
    return networks.ConvNet(nn.relu), images[:, ::2, ::2], labels


def pixel_case():
    images, labels = pictures()
    layers = [nn.Dense(64), nn.relu, nn.Dense(32), nn.relu, nn.Dense(2)]
    return nn.Sequential(layers), images[:, ::5, ::5].reshape(8, -1), labels


@pytest.mark.parametrize("case", [pixel_case, image_case, text_case])
def test_real_networks_take_25_products_at_most_for_2_percent(case, monkeypatch):
    monkeypatch.setattr(
        networks, "BLOCKS", 1
    )  # of the decoder: it compiles in less time
    model, inputs, labels = case()

    def loss(params, inputs, labels):
        logits = model.apply({"params": params}, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    with jax.numpy_rank_promotion("allow"):
        params = jax.jit(model.init)(jax.random.key(0), inputs)["params"]
        got = sharpness(loss, params, inputs, labels)
    assert max(got.products) <= 25
    assert got.error <= 0.02
    assert got.ratio > 1


def test_the_second_call_neither_compiles_nor_differentiates_again():
    traced = []

    def loss(params, x, y):
        traced.append(1)
        return network(params, x, y)

    first = sharpness(loss, network_params(0.5), *network_batch())
    assert sum(first.products) > 10
    assert len(traced) == 2  # to look at its result, and to differentiate it
    sharpness(loss, network_params(1.0), *network_batch())
    assert len(traced) == 3
    sharpness(loss, network_params(1.0), *(x[:8] for x in network_batch()))
    assert len(traced) == 5


def test_flags_that_are_equal_but_of_another_type_are_traced_anew():
    def loss(params, flag):
        return jnp.sum(params["kernel"] ** 2) * (2.0 if flag is True else 1.0)

    params = {"kernel": jnp.ones((3, 2))}
    found = [sharpness(loss, params, flag).plain for flag in (True, 1, True)]
    assert found == pytest.approx([4, 2, 4])


def test_the_same_call_gives_the_same_numbers():
    params, batch = network_params(0.5), network_batch()
    first, second = (
        sharpness(lambda *args: network(*args), params, *batch) for _ in range(2)
    )
    assert first == second


def reordered(params, values):
    return jnp.sum(values * params["kernel"][:, 0] ** 2) / 2


def reordered_and_centred(params, values):
    kernel = params["kernel"]
    return reordered({"kernel": kernel - kernel.mean()}, values)


def measured_reordered(loss, values, shift):
    params = {"kernel": jnp.zeros((len(values), 1))}
    return sharpness(loss, params, jnp.roll(jnp.asarray(values, jnp.float32), shift))


def test_it_does_not_stop_at_the_second_eigenvalue():
    """A single look at the residual is deceived by 3 of these 50 cases."""
    values = [1, 0.9, 0.2, *np.linspace(0, 0.02, 397)]
    found = [measured_reordered(reordered, values, 8 * i).plain for i in range(50)]
    assert np.sum(np.array(found) < 0.98) == 0


def test_the_error_of_the_eigenvalues_does_not_bring_the_ratio_below_1():
    values, loss = np.arange(1, 401) ** -0.25, reordered_and_centred
    ratios = [measured_reordered(loss, values, 40 * i).ratio for i in range(10)]
    assert min(ratios) == 1
    assert max(ratios) < 1.02


def test_it_stops_at_a_hundred_products_and_tells_the_bound():
    values = jnp.linspace(-1, 0.005, 4000)

    def loss(params):
        return jnp.sum(values * params["kernel"][:, 0] ** 2) / 2

    got = sharpness(loss, {"kernel": jnp.zeros((4000, 1))})
    assert got.products == (100, 100)
    assert got.error > 0.02
    assert 1 - got.plain / 0.005 < got.error
    assert f"to {got.error:.0%})" in str(got)


# What it says


def test_it_prints_one_calm_line():
    got = measured(2 * np.eye(SIZE) + 6 * MEANS)
    first, second = got.products
    assert (
        str(got)
        == repr(got)
        == (
            "sharpness 8, with GC 2: steps can be 4.00 times as long "
            f"({first} + {second} products, to 2%)"
        )
    )


# Errors


KERNEL = {"kernel": jnp.ones((3, 2))}


@jax.custom_vjp
def only_once(x):
    return jnp.sum(x**3)


only_once.defvjp(
    lambda x: (jnp.sum(x**3), x),
    lambda x, c: (
        jax.pure_callback(
            lambda x, c: np.asarray(3 * c * x**2, np.float32),
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            x,
            c,
        ),
    ),
)


@jax.custom_vjp
def calls_itself(x):
    return jnp.exp(x)


# The forward pass calls the function and keeps what it returns.
calls_itself.defvjp(lambda x: 2 * (calls_itself(x),), lambda y, c: (c * y,))


def test_a_custom_vjp_that_calls_itself_is_multiplied_in_reverse():
    got = sharpness(lambda p: jnp.sum(calls_itself(p["kernel"])), KERNEL)
    assert got.plain == pytest.approx(math.e)


REFUSED = {
    "with-aux": (lambda p: (0.0, p), TypeError, r"one real number, got float32\[\], f"),
    "vector": (lambda p: p["kernel"][0], TypeError, r"real number, got float32\[2\]\."),
    "nothing": (lambda p: None, TypeError, "one real number, got None"),
    "integer": (lambda p: jnp.ones((), int), TypeError, r"got int32\[\]. Take"),
    "complex": (lambda p: p["kernel"].sum().astype(complex), TypeError, "complex64"),
    "raises": (lambda p: p["kernle"], ValueError, r"not be traced \(KeyError, above"),
    "concrete": (lambda p: float(p["kernel"][0, 0]), ValueError, "could not be traced"),
    "nan": (lambda p: jnp.log(-p["kernel"].sum()), ValueError, "be finite, got nan"),
    "inf": (lambda p: jnp.exp(1e3 * p["kernel"].sum()), ValueError, "finite, got inf"),
    "root-of-0": (
        lambda p: jnp.sum(jnp.abs(p["kernel"] - 1) ** 1.5),
        ValueError,
        "Hessian of `loss` must be finite at `params`, got (inf|nan)",
    ),
    "custom-vjp": (lambda p: only_once(p["kernel"]), ValueError, "differentiable tw"),
    "callback": (
        lambda p: jax.pure_callback(
            lambda x: x.sum(), jax.ShapeDtypeStruct((), jnp.float32), p["kernel"]
        ),
        ValueError,
        r"one of its operations is not \(ValueError, above\). Use",
    ),
    "while": (
        lambda p: jax.lax.while_loop(
            lambda x: x.sum() < 99, lambda x: 2 * x, p["kernel"]
        ).sum(),
        ValueError,
        "lax.scan for lax.while_loop",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "kind", "match"), REFUSED.values(), ids=REFUSED)
def test_a_loss_without_a_finite_hessian_is_refused(loss, kind, match):
    with pytest.raises(kind, match=match):
        sharpness(loss, KERNEL)


def test_what_is_no_loss_and_no_axes_is_refused():
    with pytest.raises(TypeError, match="`loss` must be a function of the parameters"):
        sharpness(KERNEL, KERNEL)
    with pytest.raises(TypeError, match="`axes` must be a policy"):
        sharpness(lambda p: p["kernel"].sum(), KERNEL, axes=0)
    with pytest.raises(ValueError, match=r"\[-2, 2\), got 5 for 'kernel' of shape"):
        sharpness(lambda p: p["kernel"].sum(), KERNEL, axes={"*": 5})


@pytest.mark.parametrize("params", [{}, {"steps": 3}, {"ids": np.arange(3)}], ids=str)
def test_parameters_without_a_floating_array_are_refused(params):
    with pytest.raises(ValueError, match="must have a floating or complex array"):
        sharpness(lambda p: 0.0, params)


def test_a_call_under_jit_is_refused():
    with pytest.raises(TypeError, match="must be called outside jax"):
        jax.jit(lambda p: sharpness(lambda p: p["kernel"].sum(), p).plain)(KERNEL)


def test_shapes_alone_are_refused():
    with pytest.raises(ValueError, match="must have a floating or complex array"):
        sharpness(lambda p: p["kernel"].sum(), jax.eval_shape(lambda: KERNEL))
