"""Rewriting a program, so that it still computes the same, changes no reading.

Models are drawn from a small grammar of layers, whose axes are known by construction,
and spelled in one or two other ways each. That the numbers stay is checked first. An
hour of it: ``python -m pytest tests/test_rewrites.py -n 0 --hypothesis-profile=hour``.
How many readings are wrong or in doubt, of each layer under each two rewrites and of
each two layers under each one, in some minutes: ``python -m tests.test_rewrites``.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from optax_gc import describe, traced_fan_in

BATCH, TIME, WORDS = 2, 3, 5
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def _promoting_as_users_models_do():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def numbers(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@functools.cache
def rotation(n):
    """Returns an orthogonal matrix, another for each size."""
    rng = np.random.default_rng(n)
    return np.linalg.qr(rng.normal(size=(n, n)))[0].astype(np.float32)


# The rewrites of a leaf: each returns what it is given.


def through_zeros(w):
    return jnp.zeros((*w.shape, 2)).at[..., 1].set(w)[..., 1]


def row_by_row(w):
    return lax.fori_loop(0, len(w), lambda i, a: a.at[i].set(w[i]), jnp.zeros_like(w))


def scanned(w):
    return lax.scan(lambda c, row: (c, row * 1.0), 0.0, w)[1]


def in_halves(w):
    half = (len(w) + 1) // 2
    return jnp.concatenate([w[:half], w[half:]]) if len(w) > 1 else w


def permuted(w):
    order = np.random.default_rng(len(w)).permutation(len(w))
    return w[order][np.argsort(order)]


def in_a_ref(w):
    ref = jax.new_ref(jnp.zeros_like(w))
    ref[...] = w
    return ref[...]


def carried(w):
    return lax.fori_loop(0, 2, lambda i, w: 1.0 * w, w)


@jax.custom_vjp
def with_its_own_gradient(w):
    return 1.0 * w


with_its_own_gradient.defvjp(lambda w: (w, None), lambda _, g: (g,))

LEAVES = {
    "as it is": lambda w: w,
    "turned over twice": lambda w: w.T[::-1].T[..., ::-1],
    "flat and back": lambda w: w.reshape(-1).reshape(w.shape),
    "turned round": lambda w: jnp.roll(jnp.roll(w, 1, 0), -1, 0),
    "one of a stack": lambda w: jnp.stack([0 * w, w])[1],
    "padded and cut": lambda w: jnp.pad(w, [(1, 2)] * w.ndim)[(slice(1, -2),) * w.ndim],
    "in halves": in_halves,
    "through zeros": through_zeros,
    "row by row": row_by_row,
    "scanned": scanned,
    "permuted": permuted,
    "unstacked": lambda w: jnp.stack(list(w)),
    "in a ref": in_a_ref,
    "named": lambda w: checkpoint_name(w, "w"),
    "behind a barrier": lambda w: lax.optimization_barrier(w),
    "jitted": lambda w: jax.jit(lambda w: 2 * w)(w) / 2,
    "chosen": lambda w: lax.cond(True, lambda w: w, jnp.negative, w),
    "gathered": lambda w: w[np.arange(len(w))],
    "times ones": lambda w: w * jnp.arange(1.0, w.shape[-1] + 1) ** 0,
    "carried": carried,
    "with its own gradient": with_its_own_gradient,
    "mapped": jax.vmap(lambda w: 1.0 * w),
    "of a complex number": lambda w: lax.complex(w, 0 * w).real,
    "split": lambda w: jnp.concatenate(jnp.split(w, len(w))),
}


# The rewrites of a product (..., in) x (in, out).


def by_hand(x, w):
    return (x[..., None] * w).sum(-2)


def halves_of_inputs(x, w):
    half = (len(w) + 1) // 2
    return x[..., :half] @ w[:half] + x[..., half:] @ w[half:]


def halves_of_outputs(x, w):
    half = (w.shape[1] + 1) // 2
    return jnp.concatenate([x @ w[:, :half], x @ w[:, half:]], -1)


def output_by_output(x, w):
    return jnp.stack([x @ column for column in w.T], -1)


def input_by_input(x, w):
    return sum(x[..., i, None] * w[i] for i in range(len(w)))


def mapped(x, w):
    return jax.vmap(mapped, (0, None))(x, w) if x.ndim > 1 else x @ w


def turned(x, w):
    inputs, outputs = map(rotation, w.shape)
    return ((x @ inputs) @ (inputs.T @ w @ outputs)) @ outputs.T


def window_of_one(x, w):
    flat = x.reshape(1, -1, x.shape[-1])
    y = lax.conv_general_dilated(
        flat, w[None], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return y.reshape(*x.shape[:-1], w.shape[1])


def each_alone(x, w):
    rows = x.reshape(-1, x.shape[-1])
    return lax.map(lambda row: row @ w, rows).reshape(*x.shape[:-1], -1)


def resized(x, w):
    return x @ (jnp.repeat(w, 2, 1)[:, ::2])


def in_a_loop(x, w):
    start = jnp.zeros((*x.shape[:-1], w.shape[1]))
    return lax.fori_loop(0, len(w), lambda i, y: y + x[..., i, None] * w[i], start)


PRODUCTS = {
    "plain": lambda x, w: x @ w,
    "outputs first": lambda x, w: jnp.einsum("oi,...i->...o", w.T, x),
    "kernel on the left": lambda x, w: (w.T @ x[..., None])[..., 0],
    "by hand": by_hand,
    "halves of inputs": halves_of_inputs,
    "halves of outputs": halves_of_outputs,
    "output by output": output_by_output,
    "input by input": input_by_input,
    "turned": turned,
    "a window of one": window_of_one,
    "each alone": each_alone,
    "mapped": mapped,
    "mapped over outputs": lambda x, w: jax.vmap(
        lambda w: x @ w, in_axes=1, out_axes=-1
    )(w),
    "scaled": lambda x, w: 0.5 * (x @ (2 * w)),
    "repeated": resized,
    "in a loop": in_a_loop,
    "shifted": lambda x, w: (x - 1) @ w + w.sum(0),
    "in two shares": lambda x, w: x @ (0.25 * w) + (0.75 * x) @ w,
    "kept in its shape": lambda x, w: jnp.tensordot(x, w, 1),
}


# The layers.


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer: what it computes, and the shapes and the axes of its parameters.

    `call` takes the parameters, the input and how to multiply.
    """

    call: Callable[..., Any]
    width: int
    shapes: dict[str, tuple[int, ...]]
    axes: dict[str, tuple[int, ...] | None]


def dense(width, out):
    def call(p, x, product):
        return jnp.tanh(product(x, p["w"]) + p["b"])

    return Layer(call, out, {"w": (width, out), "b": (out,)}, {"w": (0,), "b": None})


def dense_without_bias(width, out):
    def call(p, x, product):
        return jax.nn.relu(product(x, p["w"]))

    return Layer(call, out, {"w": (width, out)}, {"w": (0,)})


def outputs_first(width, out):
    def call(p, x, product):
        return jnp.tanh(product(x, p["w"].T))

    return Layer(call, out, {"w": (out, width)}, {"w": (1,)})


def residual(width, out):
    def call(p, x, product):
        return x + product(jax.nn.gelu(product(x, p["w"])), p["v"])

    shapes = {"w": (width, out), "v": (out, width)}
    return Layer(call, width, shapes, {"w": (0,), "v": (0,)})


def norm(width, out):
    def call(p, x, product):
        x = x - x.mean(-1, keepdims=True)
        x = x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-3)
        return x * p["s"] + p["b"]

    return Layer(call, width, {"s": (width,), "b": (width,)}, {"s": None, "b": None})


def stack(width, out):
    def call(p, x, product):
        return lax.scan(lambda h, w: (jnp.tanh(product(h, w)), None), x, p["w"])[0]

    return Layer(call, width, {"w": (2, width, width)}, {"w": (1,)})


def heads(width, out):
    def call(p, x, product):
        y = product(x, p["w"].reshape(width, 2 * out)) + p["b"].reshape(2 * out)
        return product(jnp.tanh(y), p["o"].reshape(2 * out, width))

    shapes = {"w": (width, 2, out), "b": (2, out), "o": (2, out, width)}
    return Layer(call, width, shapes, {"w": (0,), "b": None, "o": (0, 1)})


def attention(width, out):
    def call(p, x, product):
        q, k = product(x, p["q"]), product(x, p["k"])
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2))
        return x + weights @ product(x, p["v"])

    shapes = {"q": (width, out), "k": (width, out), "v": (width, width)}
    return Layer(call, width, shapes, dict.fromkeys(shapes, (0,)))


def positions(width, out):
    def call(p, x, product):
        return jnp.tanh(x + p["e"])

    return Layer(call, width, {"e": (TIME, width)}, {"e": None})


def taps(width, out):
    def call(p, x, product):
        shifted = [jnp.roll(x, i, -2) for i in range(3)]
        return jnp.tanh(sum(x * p["w"][i] for i, x in enumerate(shifted)) + p["b"])

    return Layer(call, width, {"w": (3, width), "b": (width,)}, {"w": (0,), "b": None})


def queries(width, out):
    def call(p, x, product):
        q = product(p["q"], p["w"]) + p["b"]
        weights = jax.nn.softmax(q @ product(x, p["k"]).swapaxes(-1, -2))
        return weights @ x

    shapes = {"q": (TIME, width), "w": (width, out), "b": (out,), "k": (width, out)}
    axes = {"q": None, "w": (0,), "b": None, "k": (0,)}
    return Layer(call, width, shapes, axes)


def experts(width, out):
    def call(p, x, product):
        gates = jax.nn.softmax(product(x, p["g"]))
        results = [jnp.tanh(product(x, w)) for w in p["w"]]
        return sum(gates[..., i, None] * y for i, y in enumerate(results))

    shapes = {"g": (width, 2), "w": (2, width, out)}
    return Layer(call, out, shapes, {"g": (0,), "w": (1,)})


def low_rank(width, out):
    def call(p, x, product):
        frozen = rotation(5)[:width, :out]
        return jnp.tanh(product(x, frozen + p["a"] @ p["c"]))

    shapes = {"a": (width, 1), "c": (1, out)}
    return Layer(call, out, shapes, {"a": (0,), "c": None})


def filtered(width, out):
    def call(p, x, product):
        spectrum = jnp.fft.rfft(p["w"], 8, 0) * jnp.fft.rfft(x, 8, -2)
        return jnp.tanh(jnp.fft.irfft(spectrum, 8, -2)[..., :TIME, :])

    return Layer(call, width, {"w": (TIME, width)}, {"w": (0,)})


def recurrent(width, out):
    def call(p, x, product):
        def step(h, x):
            h = jnp.tanh(product(x, p["w"]) + product(h, p["u"]) + p["b"])
            return h, h

        start = jnp.zeros((*x.shape[:-2], out))
        return lax.scan(step, start, x.swapaxes(0, -2))[1].swapaxes(0, -2)

    shapes = {"w": (width, out), "u": (out, out), "b": (out,)}
    return Layer(call, out, shapes, {"w": (0,), "u": (0,), "b": None})


def joined(width, out):
    def call(p, x, product):
        y = product(x, p["w"][:width]) + product(jnp.sin(x), p["w"][width:])
        return jnp.tanh(y + p["b"])

    shapes = {"w": (2 * width, out), "b": (out,)}
    return Layer(call, out, shapes, {"w": (0,), "b": None})


def gated(width, out):
    def call(p, x, product):
        gate = jax.nn.sigmoid(product(x, p["g"]) + p["b"])
        return product(gate * product(x, p["w"]), p["v"])

    shapes = {"w": (width, out), "g": (width, out), "b": (out,), "v": (out, width)}
    axes = {"w": (0,), "g": (0,), "b": None, "v": (0,)}
    return Layer(call, width, shapes, axes)


def convolution(width, out):
    def call(p, x, product):
        flat = x.reshape(-1, *x.shape[-2:])
        y = lax.conv_general_dilated(
            flat, p["w"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return jnp.tanh(y + p["b"]).reshape(*x.shape[:-1], out)

    shapes = {"w": (3, width, out), "b": (out,)}
    return Layer(call, out, shapes, {"w": (0, 1), "b": None})


LAYERS = [
    *(dense, dense_without_bias, outputs_first, residual, norm, stack),
    *(heads, attention, positions, taps, queries, experts, low_rank),
    *(filtered, recurrent, joined, gated, convolution),
]


# The rewrites of a whole model f(params, x), which returns an array.


def as_loss(f):
    return lambda p, x: (f(p, x) ** 2).mean()


MODELS = {
    "forward": lambda f: f,
    "loss": as_loss,
    "with its gradient": lambda f: jax.value_and_grad(as_loss(f)),
    "jitted": jax.jit,
    "rematerialized": jax.checkpoint,
    "an example at a time": lambda f: lambda p, x: lax.map(lambda x: f(p, x), x),
    "scanned": lambda f: (
        lambda p, x: lax.scan(lambda c, x: (c, f(p, x)), 0.0, x[None])[1][0]
    ),
    "twice": lambda f: lambda p, x: (f(p, x) + f(p, x)) / 2,
    "vmapped": lambda f: lambda p, x: jax.vmap(lambda x: f(p, x))(x),
    "in a loop": lambda f: (
        lambda p, x: lax.fori_loop(
            0, 1, lambda _, y: y + f(p, x), jnp.zeros(jax.eval_shape(f, p, x).shape)
        )
    ),
}


def values(name, results, plain):
    """Returns what a rewritten model's results should be, and what they are."""
    expected = (plain**2).mean() if name in ("loss", "with its gradient") else plain
    return expected, results[0] if name == "with its gradient" else results


TABLES = {"leaf": LEAVES, "product": PRODUCTS, "model": MODELS}


@st.composite
def models(draw):
    """Draws layers one behind the other, with widths that often coincide."""
    width = first = draw(st.sampled_from([2, 3, 4]))
    layers = []
    for make in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3)):
        layers.append(make(width, draw(st.sampled_from([2, 3, 4]))))
        width = layers[-1].width
    return first, layers


@st.composite
def rewrites(draw):
    """Draws one or two rewrites, of a leaf, of a product or of the model."""
    plain = {"leaf": "as it is", "product": "plain", "model": "forward"}
    for place in draw(st.lists(st.sampled_from([*plain]), min_size=1, max_size=2)):
        plain[place] = draw(st.sampled_from([*TABLES[place]]))
    return plain


def spelled(layers, leaf="as it is", product="plain", model="forward"):
    def f(params, x):
        for layer, p in zip(layers, params, strict=True):
            p = {name: LEAVES[leaf](w) for name, w in p.items()}
            x = layer.call(p, x, PRODUCTS[product])
        return x

    return MODELS[model](f)


EXAMPLES = itertools.count(1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models(), rewrites(), st.booleans())
def test_the_reading_is_that_of_the_function(drawn, ways, closed):
    if next(EXAMPLES) % 100 == 0:  # compiled programs would fill the memory in an hour
        jax.clear_caches()
    width, layers = drawn
    x = numbers(BATCH, TIME, width)
    params = [
        {name: numbers(*shape) for name, shape in layer.shapes.items()}
        for layer in layers
    ]
    f = spelled(layers, **ways)
    expected, found = values(ways["model"], f(params, x), spelled(layers)(params, x))
    scale = max(1.0, float(jnp.abs(expected).max()))
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale, rtol=1e-3)

    # A constant in the closure beside the data is taken for data.
    closed = closed and ways["product"] != "turned"
    for row, right in readings(layers, f, params, x, closed):
        assert row.doubt or row.axes == right, (row, ways)


def readings(layers, f, params, x, closed=False):
    """Returns the row of each leaf, with its axes by construction."""
    given = ((lambda p: f(p, x)), params) if closed else (f, params, x)
    rows = {r.path: r for r in describe(params, traced_fan_in(*given)).rows}
    return [
        (rows[f"{number}/{name}"], right)
        for number, layer in enumerate(layers)
        for name, right in layer.axes.items()
    ]


def abstract(layers, width, **ways):
    """Returns the reading of each leaf, with the truth, without making any array."""
    x = jax.ShapeDtypeStruct((BATCH, TIME, width), jnp.float32)
    params = [
        {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in layer.shapes.items()}
        for layer in layers
    ]
    return readings(layers, spelled(layers, **ways), params, x)


def alone():
    """Yields the reading of each layer under each rewrite, with the truth."""
    for make in LAYERS:
        for place, table in TABLES.items():
            for name in table:
                yield from abstract([make(3, 4)], 3, **{place: name})


def in_twos():
    """Yields the same of each layer under each two, and of each two layers under each.

    Their widths coincide, so that no size tells an axis from another.
    """
    for make in LAYERS:
        for one, two in itertools.combinations(TABLES, 2):
            for names in itertools.product(TABLES[one], TABLES[two]):
                yield from abstract([make(2, 2)], 2, **{one: names[0], two: names[1]})
            jax.clear_caches()
    for first, second in itertools.product(LAYERS, LAYERS):
        layer = first(3, 3)
        layers = [layer, second(layer.width, 3)]
        for place, table in TABLES.items():
            for name in table:
                yield from abstract(layers, 3, **{place: name})
        jax.clear_caches()


@pytest.mark.parametrize("closed", [False, True], ids=["given", "in the closure"])
@pytest.mark.parametrize("model", MODELS)
def test_a_rewritten_leaf_is_read_alike_in_every_model(model, closed):
    layer, x = dense(3, 3), numbers(BATCH, TIME, 3)
    params = [{name: numbers(*shape) for name, shape in layer.shapes.items()}]
    for leaf in LEAVES:
        f = spelled([layer], leaf=leaf, model=model)
        for row, right in readings([layer], f, params, x, closed):
            assert (row.axes, row.doubt) == (right, ""), (row, leaf)


def test_a_doubt_is_rare():
    found = list(alone())
    wrong = [row for row, right in found if not row.doubt and row.axes != right]
    assert wrong == []
    assert sum(bool(row.doubt) for row, _ in found) <= 0.01 * len(found)


def test_the_rewrites_of_a_leaf_return_what_they_are_given():
    for shape in ((3,), (3, 4), (2, 3, 4)):
        w = numbers(*shape)
        for name, rewrite in LEAVES.items():
            np.testing.assert_allclose(rewrite(w), w, err_msg=f"{name}, {shape}")


def test_the_grammar_has_truths_for_all_leaves_of_all_layers():
    for make in LAYERS:
        layer = make(3, 4)
        assert layer.shapes.keys() == layer.axes.keys()
        assert all(math.prod(shape) > 1 for shape in layer.shapes.values())


if __name__ == "__main__":
    for way in (alone, in_twos):
        found = list(way())
        wrong = [row for row, right in found if not row.doubt and row.axes != right]
        doubts = sum(bool(row.doubt) for row, _ in found)
        print(
            f"{way.__name__}: of {len(found)} readings {len(wrong)} are wrong, "
            f"{doubts} in doubt ({doubts / len(found):.2%}).",
            *wrong,
            sep="\n",
        )
