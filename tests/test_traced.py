"""The fan-in that is read from the traced model."""

import gc
import warnings

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from jax import lax
from jax.experimental import pallas as pl

from optax_gc import (
    centralize,
    centralize_gradients,
    describe,
    fan_in,
    removed_energy,
    traced_fan_in,
)
from train.tasks import layers


@pytest.fixture(autouse=True)
def _promoting_as_users_models_do():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def zeros(*shape):
    return jnp.zeros(shape, jnp.float32)


def rows(f, params, *args, **kwargs):
    """Returns the rows of the table by path."""
    report = describe(params, traced_fan_in(f, params, *args, **kwargs))
    return {row.path: row for row in report.rows}


def read(f, params, *args, **kwargs):
    """Returns the axes of each leaf by path; they must be beyond doubt."""
    found = rows(f, params, *args, **kwargs)
    assert {path: row.doubt for path, row in found.items() if row.doubt} == {}
    return {path: row.axes for path, row in found.items()}


X = zeros(5, 4)  # a batch of five
TOKENS = jnp.zeros(5, jnp.int32)
IMAGES = zeros(2, 8, 8, 4)

# name: the function, the shapes of the parameters, the input, the axes
ONE_USE = {
    "matrix product": (lambda p, x: x @ p["w"], {"w": (4, 3)}, X, (0,)),
    "outputs first": (lambda p, x: x @ p["w"].T, {"w": (3, 4)}, X, (1,)),
    "square, outputs first": (lambda p, x: x @ p["w"].T, {"w": (4, 4)}, X, (1,)),
    "kernel on the left": (lambda p, x: p["w"] @ x.T, {"w": (3, 4)}, X, (1,)),
    "vector": (lambda p, x: x @ p["w"], {"w": (4,)}, X, (0,)),
    "query": (
        lambda p, x: jnp.einsum("bd,dhk->bhk", x, p["w"]),
        {"w": (4, 2, 3)},
        X,
        (0,),
    ),
    "attention out": (
        lambda p, x: jnp.einsum("bhk,hkd->bd", x.reshape(5, 2, 2), p["w"]),
        {"w": (2, 2, 3)},
        X,
        (0, 1),
    ),
    "einsum, output first": (
        lambda p, x: jnp.einsum("od,bd->bo", p["w"], x),
        {"w": (3, 4)},
        X,
        (1,),
    ),
    "gating pair": (
        lambda p, x: jnp.einsum("bd,gdh->gbh", x, p["w"]),
        {"w": (2, 4, 6)},
        X,
        (1,),
    ),
    "gating pair, indexed": (
        lambda p, x: jax.nn.gelu(x @ p["w"][0]) * (x @ p["w"][1]),
        {"w": (2, 4, 6)},
        X,
        (1,),
    ),
    "experts": (
        lambda p, x: jnp.einsum("ebd,edh->ebh", x[None].repeat(3, 0), p["w"]),
        {"w": (3, 4, 6)},
        X,
        (1,),
    ),
    "split after a reshape": (
        lambda p, x: x @ p["w"].reshape(4, 6),
        {"w": (4, 2, 3)},
        X,
        (0,),
    ),
    "merged inputs": (
        lambda p, x: x @ p["w"].reshape(4, 3),
        {"w": (2, 2, 3)},
        X,
        (0, 1),
    ),
    "split in three": (
        lambda p, x: sum(x @ part for part in jnp.split(p["w"], 3, axis=1)),
        {"w": (4, 9)},
        X,
        (0,),
    ),
    "reversed, padded, sliced again": (
        lambda p, x: x @ jnp.pad(p["w"][::-1], ((1, 2), (0, 3)))[1:5, :2],
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "permuted by a constant": (
        lambda p, x: x @ p["w"][jnp.array([2, 0, 1, 3])],
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "stacked and unstacked": (
        lambda p, x: x @ jnp.stack([p["w"], 2 * p["w"]])[1],
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "tiled": (lambda p, x: x @ jnp.tile(p["w"], (1, 2)), {"w": (4, 3)}, X, (0,)),
    "half precision": (
        lambda p, x: x.astype(jnp.bfloat16) @ p["w"].astype(jnp.bfloat16),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "summed by hand": (
        lambda p, x: (p["w"] * x[:, :, None]).sum(1),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "summed by hand for one example": (
        lambda p, x: (p["w"] * x[0][:, None]).sum(0),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "vmapped models": (
        lambda p, x: jax.vmap(jnp.matmul, (None, 0))(x, p["w"]),
        {"w": (3, 4, 6)},
        X,
        (1,),
    ),
    "vmapped examples": (
        lambda p, x: jax.vmap(lambda x: x @ p["w"])(x),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "first step from a zero state": (
        lambda p, x: jnp.tanh(jnp.zeros((5, 4)) @ p["w"]) * x,
        {"w": (4, 4)},
        X,
        (0,),
    ),
    "scaled by data": (
        lambda p, x: x @ (p["w"] / jnp.abs(x).max()),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "dropped by data": (
        lambda p, x: x @ jnp.where(x[:4, :3] > 0, p["w"], 0),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "jitted, rematerialized, its gradient customized": (
        lambda p, x: jax.jit(jax.checkpoint(twice))(x, p["w"]),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "one kernel after another, for each a convolution": (
        lambda p, x: jax.vmap(lambda w: convolved(x, w))(p["w"]),
        {"w": (6, 3, 4, 2)},
        X,
        (1, 2),
    ),
    "an ensemble of convolutions": (
        lambda p, x: jax.vmap(convolved)(jnp.stack([x] * 6), p["w"]),
        {"w": (6, 3, 4, 2)},
        X,
        (1, 2),
    ),
    "shifted copies, each times its own weights, added": (
        lambda p, x: sum(jnp.roll(x, i, 0) * p["w"][i] for i in range(3)) + 1,
        {"w": (3, 4)},
        X,
        (0,),
    ),
    "the same, layer after layer": (
        lambda p, x: lax.scan(
            lambda h, w: (sum(jnp.roll(h, i, 0) * w[i] for i in range(3)), None),
            x,
            p["w"],
        )[0],
        {"w": (2, 3, 4)},
        X,
        (1,),
    ),
    "the same, unstacked": (
        lambda p, x: sum(jnp.roll(x, i, 0) * w for i, w in enumerate(p["w"])) + 1,
        {"w": (3, 4)},
        X,
        (0,),
    ),
    "cond": (
        lambda p, x: lax.cond(
            x[0, 0] > 0, lambda: x @ p["w"], lambda: (2 * x) @ p["w"]
        ),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "switch among layers": (
        lambda p, x: x @ lax.switch(1, [lambda: p["w"][0], lambda: p["w"][1]]),
        {"w": (2, 4, 3)},
        X,
        (1,),
    ),
    "while": (
        lambda p, x: lax.while_loop(
            lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] @ p["w"]), (0, x)
        )[1],
        {"w": (4, 4)},
        X,
        (0,),
    ),
    "layers by number": (
        lambda p, x: lax.fori_loop(0, 3, lambda i, h: h @ p["w"][i], x),
        {"w": (3, 4, 4)},
        X,
        (1,),
    ),
    "scanned layers": (
        lambda p, x: lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0],
        {"w": (3, 4, 4)},
        X,
        (1,),
    ),
    "scanned, kernels handed on": (
        lambda p, x: x @ lax.scan(lambda c, w: (c, w * 2), 0.0, p["w"])[1][1],
        {"w": (3, 4, 4)},
        X,
        (1,),
    ),
    "recurrent": (
        lambda p, x: lax.scan(
            lambda h, x: (jnp.tanh(x + h @ p["w"]), None), zeros(4), x
        )[0],
        {"w": (4, 4)},
        X,
        (0,),
    ),
    "ragged": (
        lambda p, x: lax.ragged_dot(x, p["w"], jnp.array([2, 3])),
        {"w": (2, 4, 3)},
        X,
        (1,),
    ),
    "experts chosen by data": (
        lambda p, i: jnp.einsum("bd,bdo->bo", zeros(5, 4) + i[:, None], p["w"][i]),
        {"w": (6, 4, 3)},
        TOKENS,
        (1,),
    ),
    "looked up": (lambda p, i: p["w"][i], {"w": (9, 4)}, TOKENS, None),
    "looked up, then a layer": (
        lambda p, i: p["w"][i] @ jnp.ones((4, 3)),
        {"w": (9, 4)},
        TOKENS,
        None,
    ),
    "looked up by one-hot": (
        lambda p, i: jax.nn.one_hot(i, 9) @ p["w"],
        {"w": (9, 4)},
        TOKENS,
        None,
    ),
    "its nearest row looked up": (
        lambda p, x: jax.device_put(p["w"].T)[jnp.argmin(x @ p["w"], axis=1)],
        {"w": (4, 9)},
        X,
        None,
    ),
    "a row summed by one-hot": (
        lambda p, i: (jax.nn.one_hot(i, 9)[:, :, None] * p["w"]).sum(1),
        {"w": (9, 4)},
        TOKENS,
        None,
    ),
    "looked up, then a loop": (
        lambda p, i: lax.scan(
            lambda h, _: (jnp.tanh(h - h.mean()), None), p["w"][i], None, length=2
        )[0],
        {"w": (9, 4)},
        TOKENS,
        None,
    ),
    "added": (lambda p, x: jnp.tanh(x + p["w"]), {"w": (5, 4)}, X, None),
    "multiplied": (lambda p, x: jnp.tanh(x * p["w"]), {"w": (5, 4)}, X, None),
    "multiplied by einsum": (
        lambda p, x: jnp.einsum("bd,bd->bd", x, p["w"]) + 1,
        {"w": (5, 4)},
        X,
        None,
    ),
    "joined": (
        lambda p, x: jnp.concatenate([p["w"], x]) @ jnp.ones((4, 3)),
        {"w": (2, 4)},
        X,
        None,
    ),
    "stopped": (lambda p, x: x @ lax.stop_gradient(p["w"]), {"w": (4, 3)}, X, None),
    "its result stopped": (
        lambda p, x: x.sum() + lax.stop_gradient(x @ p["w"]).sum(),
        {"w": (4, 3)},
        X,
        None,
    ),
    "never used": (lambda p, x: x, {"w": (4, 3)}, X, None),
    "computed in vain": (lambda p, x: (x @ p["w"], x)[1], {"w": (4, 3)}, X, None),
    "a penalty": (lambda p, x: x.sum() + (p["w"] ** 2).sum(), {"w": (4, 3)}, X, None),
    "a layer and a penalty": (
        lambda p, x: (x @ p["w"]).sum() + 1e-4 * jnp.sum(p["w"] ** 2),
        {"w": (4, 3)},
        X,
        (0,),
    ),
    "norm": (
        lambda p, x: (x / jnp.linalg.norm(x)) @ (p["w"] / jnp.linalg.norm(p["w"])),
        {"w": (4, 3)},
        X,
        (0,),
    ),
}


def convolved(x, kernel):
    numbers = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(
        x[None], kernel, (1,), "SAME", dimension_numbers=numbers
    )


@jax.custom_vjp
def twice(x, kernel):
    return 2 * (x @ kernel)


twice.defvjp(lambda x, w: (twice(x, w), (x, w)), lambda s, g: (g @ s[1].T, s[0].T @ g))


@jax.custom_vjp
def signs(kernel):
    return jnp.sign(kernel)


signs.defvjp(lambda kernel: (signs(kernel), None), lambda _, g: (g,))


@pytest.mark.parametrize("name", ONE_USE)
def test_a_leaf_is_read(name):
    f, shapes, x, axes = ONE_USE[name]
    params = {name: zeros(*shape) for name, shape in shapes.items()}
    assert read(f, params, x) == {"w": axes}


CONVOLUTIONS = {
    "HWIO": ((3, 3, 4, 6), (0, 1, 2), {}),
    "OIHW": ((6, 4, 3, 3), (1, 2, 3), {"kernel": "OIHW"}),
    "strided": ((3, 3, 4, 6), (0, 1, 2), {"window_strides": (2, 2)}),
    "dilated": ((3, 3, 4, 6), (0, 1, 2), {"rhs_dilation": (2, 2)}),
    "transposed": ((3, 3, 4, 6), (0, 1, 2), {"lhs_dilation": (2, 2)}),
    "grouped": ((3, 3, 2, 6), (0, 1, 2), {"feature_group_count": 2}),
    "depthwise": ((3, 3, 1, 8), (0, 1, 2), {"feature_group_count": 4}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_read(name):
    shape, axes, options = CONVOLUTIONS[name]
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    numbers = ("NHWC", options.pop("kernel", "HWIO"), "NHWC")
    if "lhs_dilation" in options:
        options["padding"] = [(1, 1), (1, 1)]

    def f(params, x):
        return lax.conv_general_dilated(
            x, params["w"], dimension_numbers=numbers, **options
        )

    assert read(f, {"w": zeros(*shape)}, IMAGES) == {"w": axes}


def test_a_depthwise_kernel_in_keras_layout_has_the_window_as_its_fan_in():
    def f(params, x):
        kernel = params["w"].reshape(3, 3, 1, 8)
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4,
        )  # fmt: skip

    assert read(f, {"w": zeros(3, 3, 4, 2)}, IMAGES) == {"w": (0, 1)}


@pytest.mark.parametrize(
    ("flip", "axes"), [(False, (0, 1, 2)), (True, (0, 1, 3))], ids=["plain", "flipped"]
)
def test_a_transposed_convolution_is_read(flip, axes):
    model = nn.ConvTranspose(4, (3, 3), transpose_kernel=flip)
    variables = model.init(jax.random.key(0), IMAGES)
    assert read(model.apply, variables, IMAGES)["params/kernel"] == axes


@pytest.mark.parametrize("channels", [3, 16])
def test_the_layers_of_the_experiment_are_read(channels):
    def f(function):
        return lambda p, x: function(x, p["kernel"], p["bias"])

    params = {"kernel": zeros(3, 3, channels, 6), "bias": zeros(6)}
    image = zeros(12, 12, channels)
    for function in (layers.conv_relu_pool, layers._conv_relu_pool_cpu):
        expected = {"bias": None, "kernel": (0, 1, 2)}
        assert read(f(function), params, image) == expected


REPARAMETRIZED = {
    "weight norm": (
        lambda p, x: x @ (p["g"] * p["w"] / jnp.linalg.norm(p["w"], axis=0)),
        {"w": (4, 3), "g": (3,)},
        {"w": (0,), "g": None},
    ),
    "weight standardization": (
        lambda p, x: x @ ((p["w"] - p["w"].mean(0)) / (p["w"].std(0) + 1e-6)),
        {"w": (4, 3)},
        {"w": (0,)},
    ),
    "low rank, added": (
        lambda p, x: x @ (p["w"] + 0.5 * p["a"] @ p["b"]),
        {"w": (4, 3), "a": (4, 2), "b": (2, 3)},
        {"w": (0,), "a": (0,), "b": (0,)},
    ),
    "low rank, apart": (
        lambda p, x: x @ p["w"] + (x @ p["a"]) @ p["b"],
        {"w": (4, 3), "a": (4, 2), "b": (2, 3)},
        {"w": (0,), "a": (0,), "b": (0,)},
    ),
    "one plus scale": (
        lambda p, x: jnp.tanh(x * (1 + p["s"])) @ p["w"],
        {"w": (4, 3), "s": (4,)},
        {"w": (0,), "s": None},
    ),
    "scale without shift, normalized again": (
        lambda p, x: standardized(standardized(x) * p["s"]) @ p["w"],
        {"w": (4, 3), "s": (4,)},
        {"w": (0,), "s": None},
    ),
    "scaled queries and keys": (
        lambda p, x: (standardized(x @ p["w"]) * p["s"]) @ (standardized(x) * p["t"]).T,
        {"w": (4, 4), "s": (4,), "t": (4,)},
        {"w": (0,), "s": None, "t": None},
    ),
    "noise in the kernel": (
        lambda p, x: x @ (p["w"] + p["s"] * jnp.sin(x[:4, :3])),
        {"w": (4, 3), "s": (4, 3)},
        {"w": (0,), "s": (0,)},
    ),
    "signs, their gradient passed straight through": (
        lambda p, x: x @ signs(p["w"]),
        {"w": (4, 3)},
        {"w": (0,)},
    ),
    "straight-through rounding": (
        lambda p, x: x @ (p["w"] + lax.stop_gradient(jnp.round(p["w"]) - p["w"])),
        {"w": (4, 3)},
        {"w": (0,)},
    ),
    "int8, scaled by its own largest": (
        lambda p, x: int8_product(x, p["w"]),
        {"w": (4, 3)},
        {"w": (0,)},
    ),
    "an embedding with a low-rank product": (
        lambda p, x: (p["w"] + p["a"] @ p["b"])[x[:, 0].astype(int)],
        {"w": (9, 3), "a": (9, 2), "b": (2, 3)},
        {"w": None, "a": None, "b": (0,)},
    ),
    "learned positions": (
        lambda p, x: standardized(x + p["positions"][:5]) @ p["w"],
        {"w": (4, 3), "positions": (7, 4)},
        {"w": (0,), "positions": None},
    ),
    "demodulated, as in StyleGAN 2": (
        lambda p, x: jax.vmap(demodulated, (None, 0))(p["w"], x),
        {"w": (4, 3)},
        {"w": (0,)},
    ),
}


def standardized(x):
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def demodulated(kernel, x):
    kernel = kernel * jnp.tanh(x)[:, None]
    return x @ (kernel * lax.rsqrt((kernel**2).sum(0) + 1e-6))


def int8_product(x, kernel):
    scale = jnp.abs(kernel).max(0) / 127
    rounded = jnp.round(kernel / scale).astype(jnp.int8)
    product = lax.dot(x.astype(jnp.int8), rounded, preferred_element_type=jnp.int32)
    return product.astype(jnp.float32) * scale


@pytest.mark.parametrize("name", REPARAMETRIZED)
def test_a_reparametrized_kernel_is_read_the_way_that_it_takes_itself(name):
    f, shapes, axes = REPARAMETRIZED[name]
    params = {name: zeros(*shape) for name, shape in shapes.items()}
    assert read(f, params, X) == axes


def test_a_spectral_norm_with_its_state_as_an_input_is_no_second_use():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.SpectralNorm(nn.Dense(3), collection_name="stats")
            return layer(x, update_stats=True)

    variables = Model().init(jax.random.key(0), X)
    state = {"stats": variables["stats"]}

    def f(params, state, x):
        return Model().apply({"params": params, **state}, x, mutable=["stats"])

    axes = read(f, variables["params"], state, X)
    assert axes == {"Dense_0/bias": None, "Dense_0/kernel": (0,)}


def test_a_norm_along_the_other_axis_is_no_second_use():
    def f(params, x, v):
        w = params["w"]
        u = lax.stop_gradient(w @ v)
        return x @ (w / (u @ (w @ v)))

    assert read(f, {"w": zeros(4, 3)}, X, zeros(3)) == {"w": (0,)}


WHY = {
    "looked up": lambda p, i: p["w"][i],
    "added to the data": lambda p, i: jnp.tanh(i[:, None] + p["w"][:5]),
    "multiplied with the data": lambda p, i: jnp.tanh(i[:, None] * p["w"][:5]),
    "joined to the data": lambda p, i: jnp.concatenate([p["w"], i[:, None] * zeros(4)]),
    "behind stop_gradient": lambda p, i: lax.stop_gradient(p["w"])[i],
    "never used": lambda p, i: i,
    "in a norm or a penalty only": lambda p, i: i.sum() + (p["w"] ** 2).sum(),
    "contracted in dot_general": lambda p, i: (i[:, None] * jnp.ones(9)) @ p["w"],
}  # fmt: skip


@pytest.mark.parametrize("why", WHY)
def test_the_reason_is_told(why):
    assert rows(WHY[why], {"w": zeros(9, 4)}, TOKENS)["w"].why == why


TWO_WAYS = {
    "tied embedding": (
        lambda p, x: p["w"][x[:, 0].astype(int)] @ p["w"].T,
        (9, 4),
        ["looked up", "contracted over (1,)"],
    ),
    "tied embedding around a loop": (
        lambda p, x: (
            lax.scan(
                lambda h, _: (jnp.tanh(h - h.mean()), None),
                p["w"][x[:, 0].astype(int)],
                None,
                length=2,
            )[0]
            @ p["w"].T
        ),
        (9, 4),
        ["looked up", "contracted over (1,)"],
    ),
    "a layer and its transpose": (
        lambda p, x: x @ p["w"] @ p["w"].T,
        (4, 3),
        ["contracted over (0,)", "contracted over (1,)"],
    ),
    "branches that disagree": (
        lambda p, x: lax.cond(x[0, 0] > 0, lambda: x @ p["w"], lambda: x @ p["w"].T),
        (4, 4),
        ["contracted over (0,)", "contracted over (1,)"],
    ),
    "half an axis": (
        lambda p, x: x @ p["w"].reshape(2, 4, 3)[0],
        (8, 3),
        ["contracted over no axis and a part of (0,)"],
    ),
    "one of two groups of rows": (
        lambda p, x: x @ p["w"][:4],
        (8, 3),
        ["a part of (0,)"],
    ),
    "what makes a convolution's kernel, of one output": (
        lambda p, x: convolved(x, p["w"] @ x[:, 0]),
        (3, 4, 1, 5),
        ["contracted over (3,)", "contracted over (0, 1)"],
    ),
    "symmetrized": (
        lambda p, x: x @ (p["w"] + p["w"].T),
        (4, 4),
        ["contracted over (0,)", "contracted over (1,)"],
    ),
}


@pytest.mark.parametrize("name", TWO_WAYS)
def test_what_has_two_answers_is_in_doubt_and_left_alone(name):
    f, shape, readings = TWO_WAYS[name]
    row = rows(f, {"w": zeros(*shape)}, X)["w"]
    assert row.axes is None
    for reading in readings:
        assert reading in row.doubt


def test_a_learned_query_through_its_kernel_leaves_both_in_doubt():
    def f(params, x):
        return (params["probe"] @ params["query"]) @ (x @ params["key"]).T

    params = {"probe": zeros(1, 4), "query": zeros(4, 3), "key": zeros(4, 3)}
    found = rows(f, params, X)
    assert (found["key"].axes, found["key"].doubt) == ((0,), "")
    assert found["query"].axes is found["probe"].axes is None
    own, other = "contracted with 'probe' over (0,)", "or the data over (1,)"
    assert found["query"].doubt == f"{own}, {other}"
    assert "contracted with 'query' over (1,)" in found["probe"].doubt


def test_a_bias_after_a_product_of_parameters_tells_the_kernel():
    def f(params, x):
        query = params["probe"] @ params["query"]["kernel"] + params["query"]["bias"]
        return query @ x.T

    query = {"kernel": zeros(4, 4), "bias": zeros(4)}
    found = rows(f, {"probe": zeros(1, 4), "query": query}, X)
    axes = {path: (row.axes, row.doubt) for path, row in found.items()}
    assert axes["query/kernel"] == ((0,), "")
    assert axes["probe"] == axes["query/bias"] == (None, "")


def test_another_use_tells_the_kernel_in_a_product_of_parameters():
    def f(params, x):
        state = params["start"]
        for t in range(3):
            state = jnp.tanh(state @ params["kernel"] + x[t])
        return state

    found = rows(f, {"start": zeros(4), "kernel": zeros(4, 4)}, X)
    assert (found["kernel"].axes, found["kernel"].doubt) == ((0,), "")


def test_an_override_settles_a_doubt():
    def f(params, x):
        return params["table"][x] @ params["table"].T

    params = {"table": zeros(9, 4)}
    axes = {"table": 1, "*": traced_fan_in(f, params, TOKENS)}
    assert describe(params, axes).rows[0].axes == (1,)
    assert describe(params, axes).rows[0].doubt == ""


def test_stacked_and_output_axes_are_told():
    def f(params, x):
        x, _ = lax.scan(lambda h, w: (h @ w, None), x, params["layers"])
        x = jnp.einsum("bd,dhk->bhk", x, params["query"])
        return jnp.einsum("bhk,hkd->bhd", x, params["heads"])

    shapes = {"layers": (3, 4, 4), "query": (4, 2, 5), "heads": (2, 5, 6)}
    found = rows(f, {name: zeros(*shape) for name, shape in shapes.items()}, X)
    axes = {p: (row.axes, row.outputs, row.stacked) for p, row in found.items()}
    assert axes == {
        "heads": ((1,), (2,), (0,)),
        "layers": ((1,), (2,), (0,)),
        "query": ((0,), (1, 2), ()),
    }


def double(x_ref, w_ref, o_ref):
    o_ref[...] = x_ref[...] @ w_ref[...]


def test_a_pallas_kernel_is_named_and_guessed():
    def f(params, x):
        out = jax.ShapeDtypeStruct((5, 3), jnp.float32)
        return pl.pallas_call(double, out_shape=out, interpret=True)(x, params["w"])

    row = rows(f, {"w": zeros(4, 3)}, X)["w"]
    assert row.axes == (0,)
    assert "pallas_call" in row.doubt


def test_a_foreign_call_is_named_and_guessed():
    def f(params, x):
        out = jax.ShapeDtypeStruct((5, 3), jnp.float32)
        return jax.pure_callback(lambda x, w: x @ w, out, x, params["w"])

    row = rows(f, {"w": zeros(4, 3)}, X)["w"]
    assert row.axes == (0,)
    assert "pure_callback" in row.doubt


def test_a_primitive_without_a_rule_is_named_and_guessed():
    def f(params, x):
        q, _ = jnp.linalg.qr(params["w"])
        return x @ q

    row = rows(f, {"w": zeros(4, 3)}, X)["w"]
    assert row.axes == (0,)
    assert "cannot be read" in row.doubt


def test_a_table_that_is_interpolated_and_added_is_added():
    def f(params, x):
        return x + jax.image.resize(params["w"], (5, 4), "bilinear")

    assert read(f, {"w": zeros(3, 2)}, X) == {"w": None}


# Frameworks.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return x + nn.Dense(4)(nn.gelu(nn.Dense(8)(nn.RMSNorm()(x)))), None


def test_scanned_and_rematerialized_blocks_of_linen_are_read():
    blocks = nn.scan(
        nn.remat(Block), {"params": 0}, split_rngs={"params": True}, length=3
    )()
    x = zeros(2, 5, 4)
    variables = jax.eval_shape(blocks.init, jax.random.key(0), x, None)
    found = read(blocks.apply, variables, x, None)
    kernels = {path: axes for path, axes in found.items() if axes}
    attention = "params/MultiHeadDotProductAttention_0"
    assert kernels == {
        f"{attention}/key/kernel": (1,),
        f"{attention}/out/kernel": (1, 2),
        f"{attention}/query/kernel": (1,),
        f"{attention}/value/kernel": (1,),
        "params/Dense_0/kernel": (1,),
        "params/Dense_1/kernel": (1,),
    }


@pytest.mark.parametrize(
    "cell", [nn.LSTMCell, nn.OptimizedLSTMCell, nn.GRUCell], ids=lambda c: c.__name__
)
def test_recurrent_cells_of_linen_are_read(cell):
    model = nn.RNN(cell(4))
    x = zeros(2, 5, 4)
    variables = model.init(jax.random.key(0), x)
    found = read(model.apply, variables, x)
    for path, axes in found.items():
        assert axes == ((0,) if path.endswith("kernel") else None), path


def test_a_list_without_names_is_read():
    def f(params, x):
        return x @ params[0] + params[1]

    assert read(f, [zeros(4, 4), zeros(4)], X) == {"0": (0,), "1": None}


# The policy.


def apply(params, x):
    return x @ params["w"].T + params["b"]


PARAMS = {"w": jnp.arange(12.0).reshape(3, 4), "b": zeros(3)}


def test_shapes_are_enough_and_nothing_is_computed():
    def f(params, x):
        jax.debug.callback(lambda: pytest.fail("it ran"))
        return apply(params, x)

    shapes = jax.eval_shape(lambda: PARAMS)
    axes = traced_fan_in(f, shapes, jax.ShapeDtypeStruct((5, 4), jnp.float32))
    assert describe(PARAMS, axes).rows[1].axes == (1,)


def test_flags_and_keyword_arguments_are_held_fixed():
    def f(params, x, transpose, *, train):
        assert train is True
        return x @ (params["w"].T if transpose else params["w"])

    assert read(f, {"w": zeros(4, 4)}, X, True, train=True) == {"w": (1,)}


def test_the_policy_serves_wherever_fan_in_does():
    axes = traced_fan_in(apply, PARAMS, X)
    tx = centralize_gradients(axes)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert jnp.array_equal(updates["w"], centralize(PARAMS["w"], 1))
    energy = removed_energy(PARAMS, {"*": axes})
    assert energy["w"] > 0
    assert energy["b"] == 0


def test_the_policy_finds_a_leaf_by_its_path_in_a_tree_with_gaps():
    axes = traced_fan_in(apply, PARAMS, X)
    gaps = {"w": PARAMS["w"], "b": None}
    assert [row.axes for row in describe(gaps, axes).rows] == [(1,)]
    tx = optax.masked(centralize_gradients(axes), {"w": True, "b": False})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert jnp.array_equal(updates["w"], centralize(PARAMS["w"], 1))
    tx = optax.partition(
        {"gc": centralize_gradients(axes), "no": optax.identity()},
        {"w": "gc", "b": "no"},
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert jnp.array_equal(updates["w"], centralize(PARAMS["w"], 1))


def mesh_of_one():
    auto = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((1,), ("shards",), axis_types=auto)


def test_the_policy_works_in_shard_map():
    axes = traced_fan_in(apply, PARAMS, X)
    tx = centralize_gradients(axes)
    spec = {"w": jax.P("shards"), "b": jax.P("shards")}

    @jax.shard_map(mesh=mesh_of_one(), in_specs=(spec,), out_specs=spec)
    def update(grads):
        return tx.update(grads, optax.EmptyState())[0]

    assert jnp.allclose(update(PARAMS)["w"], centralize(PARAMS["w"], 1))


def test_a_model_in_shard_map_is_read():

    def f(params, x):
        return jax.shard_map(
            apply, mesh=mesh_of_one(), in_specs=(jax.P(), jax.P("shards")),
            out_specs=jax.P("shards"),
        )(params, x)  # fmt: skip

    assert read(f, PARAMS, X) == {"b": None, "w": (1,)}


def test_an_untraced_path_is_an_error_that_names_it():
    axes = traced_fan_in(apply, PARAMS, X)
    with pytest.raises(ValueError, match="'head/b' were not traced"):
        centralize_gradients(axes).init({"head": PARAMS})


def test_another_rank_is_an_error_that_names_the_leaf():
    axes = traced_fan_in(apply, PARAMS, X)
    with pytest.raises(ValueError, match=r"'w' was traced with shape \(3, 4\)"):
        describe({"w": zeros(2, 3, 4)}, axes)


def test_a_model_that_is_no_function_is_an_error():
    with pytest.raises(TypeError, match="`f` must be a function of the parameters"):
        traced_fan_in(PARAMS, apply, X)


@pytest.mark.parametrize(
    ("params", "x", "theirs"),
    [({"v": zeros(3, 4)}, X, "w"), (PARAMS, zeros(5, 9), "dot_general")],
    ids=["other parameters", "inputs of another shape"],
)
def test_what_cannot_be_traced_is_one_message_above_that_of_jax(params, x, theirs):
    with pytest.raises(ValueError, match="could not be traced") as caught:
        traced_fan_in(apply, params, x)
    assert theirs in str(caught.value.__cause__)


def test_a_model_that_centralizes_nothing_warns_at_init():
    axes = traced_fan_in(lambda p, x: p["w"][x], {"w": zeros(9, 4)}, TOKENS)
    with pytest.warns(UserWarning, match="None of the 1 leaves"):
        centralize_gradients(axes).init({"w": zeros(9, 4)})


def test_where_the_guess_is_right_both_agree():
    params = {"kernel": zeros(4, 3), "bias": zeros(3)}
    axes = traced_fan_in(lambda p, x: x @ p["kernel"] + p["bias"], params, X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guessed, traced = describe(params, fan_in), describe(params, axes)
    assert [r.axes for r in guessed.rows] == [r.axes for r in traced.rows]


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
def test_reading_leaves_the_garbage_collector_as_it_was(on):
    seen = []

    def apply(params, x):
        seen.append(gc.isenabled())  # it is the caller's while the model is traced
        return x @ params

    (gc.enable if on else gc.disable)()
    try:
        traced_fan_in(apply, jnp.ones((3, 2)), jnp.ones((1, 3)))
        assert [*seen, gc.isenabled()] == [on, on]
    finally:
        gc.enable()
