"""The fan-in belongs to the function: programs that spell ordinary layers otherwise.

Each entry gives a function, the shapes of its parameters, and the axes: those of a
kernel, None for what has none, or `DOUBT` where two readings remain.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from optax_gc import _walk, centralize_gradients, describe, traced_fan_in

DOUBT = "in doubt"
X = jax.ShapeDtypeStruct((5, 4), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((5,), jnp.int32)
IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
LAYOUT = ("NHWC", "HWIO", "NHWC")
RNG = np.random.default_rng(0)
SIX, FOUR = (jnp.asarray(RNG.normal(size=(n, n)), jnp.float32) for n in (6, 4))
BATCH = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
LABELS = jnp.asarray(RNG.normal(size=(5, 6)), jnp.float32)


@pytest.fixture(autouse=True)
def _promoting_as_users_models_do():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def read(f, params, *args):
    """Returns the axes of each leaf by path, or `DOUBT`."""
    report = describe(params, traced_fan_in(f, params, *args))
    return {row.path: DOUBT if row.doubt else row.axes for row in report.rows}


def shapes(**shapes):
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()
    }


def normalized(x):
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def unit(w):
    return w / jnp.linalg.norm(w, axis=0)


def attend(query, keys):
    return jax.nn.softmax(query @ keys.T) @ keys


def circulant(row):
    return row[(np.arange(6)[:, None] - np.arange(6)) % 6]


def convolved(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, LAYOUT)


LAGS = jnp.arange(3.0)
WITH_BIAS = {"w": (4, 6), "b": (6,)}
KERNEL_AND_BIAS = {"w": (0,), "b": None}

LEARNED_INPUTS = {
    "object queries through a layer": (
        lambda p, x: attend(p["q"] @ p["w"] + p["b"], x @ p["k"]),
        {"q": (3, 4), "k": (4, 6), **WITH_BIAS},
        {"q": None, "k": (0,), **KERNEL_AND_BIAS},
    ),
    "a class token through an activation": (
        lambda p, x: jnp.tanh(p["token"] @ p["w"]) * (x @ p["w2"]),
        {"token": (1, 4), "w": (4, 6), "w2": (4, 6)},
        {"token": None, "w": (0,), "w2": (0,)},
    ),
    "node embeddings through two layers": (
        lambda p, x: (
            x.T @ (jax.nn.relu(p["e"] @ p["w"] + p["b"]) @ p["v"]),
            p["e"],
        )[0],
        {"e": (5, 4), "v": (6, 3), **WITH_BIAS},
        {"e": None, "v": (0,), **KERNEL_AND_BIAS},
    ),
    "a residual around a projection": (
        lambda p, x: attend(p["q"] + p["q"] @ p["w"], x),
        {"q": (3, 4), "w": (4, 4)},
        {"q": None, "w": (0,)},
    ),
    "a norm with a scale and a shift": (
        lambda p, x: attend(normalized(p["q"] @ p["w"]) * p["s"] + p["b"], x @ p["k"]),
        {"q": (3, 4), "k": (4, 6), "s": (6,), **WITH_BIAS},
        {"q": None, "k": (0,), "s": None, **KERNEL_AND_BIAS},
    ),
    "a learned state to begin with": (
        lambda p, x: lax.scan(
            lambda h, x: (jnp.tanh(h @ p["w"] + x @ p["u"] + p["b"]), None),
            p["h"],
            x,
        )[0],
        {"h": (6,), "w": (6, 6), "u": (4, 6), "b": (6,)},
        {"h": None, "w": (0,), "u": (0,), "b": None},
    ),
    "a vector that scales the data": (
        lambda p, x: (x @ p["w"]) * (p["z"] @ p["v"] + 1.0),
        {"z": (3,), "w": (4, 6), "v": (3, 6)},
        {"z": None, "w": (0,), "v": (0,)},
    ),
    "a constant vector through two layers": (
        lambda p, x: x + jax.nn.silu(jnp.arange(8.0) @ p["w"] + p["b"]) @ p["v"],
        {"w": (8, 6), "b": (6,), "v": (6, 4)},
        {"w": (0,), "b": None, "v": (0,)},
    ),
    "a kernel in halves": (
        lambda p, x: attend(
            p["q"][:, :2] @ p["w"][:2] + p["q"][:, 2:] @ p["w"][2:] + p["b"], x @ p["k"]
        ),
        {"q": (3, 4), "k": (4, 6), **WITH_BIAS},
        {"q": None, "k": (0,), **KERNEL_AND_BIAS},
    ),
    "an outer product": (
        lambda p, x: attend(p["q"][:, None] * p["w"][None] + p["b"], x @ p["k"]),
        {"q": (3,), "w": (6,), "b": (6,), "k": (4, 6)},
        {"q": None, "w": None, "b": None, "k": (0,)},
    ),
    "latents, added to what they attend to": (
        lambda p, x: jnp.tanh(p["q"] + attend(p["q"] @ p["w"], x @ p["k"])) @ p["v"],
        {"q": (3, 6), "w": (6, 6), "k": (4, 6), "v": (6, 3)},
        {"q": None, "w": (0,), "k": (0,), "v": (0,)},
    ),
    "latents, joined to the data": (
        lambda p, x: (
            lambda latents: attend(
                latents @ p["w"], jnp.concatenate([x, latents]) @ p["k"]
            )
        )(normalized(p["q"]) * p["s"] + p["b"]),
        {"q": (3, 4), "s": (4,), "b": (4,), "w": (4, 6), "k": (4, 6)},
        {"q": None, "s": None, "b": None, "w": (0,), "k": (0,)},
    ),
    "nothing tells": (
        lambda p, x: (p["q"] @ p["w"]) @ (x @ p["k"]).T,
        {"q": (3, 4), "w": (4, 6), "k": (4, 6)},
        {"q": DOUBT, "w": DOUBT, "k": (0,)},
    ),
}

CONSTANTS = {
    "inputs mixed": (
        lambda p, x: x @ (FOUR @ p["w"]),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "outputs mixed, the bias too": (
        lambda p, x: x @ jnp.einsum("io,op->ip", p["w"], SIX) + p["b"] @ SIX,
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "differences along the outputs": (
        lambda p, x: x @ jnp.cumsum(p["w"][:, ::-1], 1) + jnp.cumsum(p["b"]),
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "a circulant matrix": (
        lambda p, x: (x @ FOUR[:, [0, 1, 2, 3, 0, 1]]) @ circulant(p["w"]),
        {"w": (6,)},
        {"w": (0,)},
    ),
    "a circulant matrix for each pair of channels": (
        lambda p, x: jnp.einsum(
            "bin,oimn->bom",
            x.reshape(5, 2, 2),
            p["w"][..., (np.arange(2)[:, None] - np.arange(2)) % 2],
        ),
        {"w": (3, 2, 2)},
        {"w": (1, 2)},
    ),
    "a basis of columns": (
        lambda p, x: x @ jnp.einsum("iok,k->io", p["w"], jnp.arange(3.0)),
        {"w": (4, 6, 3)},
        {"w": (0, 2)},
    ),
    "a smaller kernel, enlarged": (
        lambda p, x: x @ jax.image.resize(p["w"], (4, 6), "linear"),
        {"w": (2, 6)},
        {"w": (0,)},
    ),
    "outputs repeated": (
        lambda p, x: x @ jnp.repeat(p["w"], 2, axis=1),
        {"w": (4, 3)},
        {"w": (0,)},
    ),
    "a table of relative positions, added to the scores of one example": (
        lambda p, x: (
            jax.nn.softmax(x @ x.T + p["e"][abs(np.arange(5)[:, None] - 2)]) @ x
        ),
        {"e": (3, 1)},
        {"e": None},
    ),
    "a table of relative positions, contracted with queries": (
        lambda p, x: jnp.einsum(
            "td,tsd->ts", x @ p["q"], p["e"][np.arange(5)[:, None] - np.arange(5) + 4]
        ),
        {"q": (4, 6), "e": (9, 6)},
        {"q": (0,), "e": (1,)},
    ),
    "positions that are constant, and queries": (
        lambda p, x: (x @ p["q"]) @ (BATCH @ p["w"]).T,
        {"q": (4, 6), "w": (4, 6)},
        {"q": (0,), "w": (0,)},
    ),
    "positions that are constant, or outputs mixed": (
        lambda p, x: x @ (SIX[:5] @ p["w"]).T,
        {"w": (6, 4)},
        {"w": DOUBT},
    ),
    "an upper triangle of ones": (
        lambda p, x: x @ (p["w"] @ jnp.triu(jnp.ones((6, 6)))),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
}


def network(p, x):
    hidden = jnp.tanh(x @ p["w"] + p["b"])
    return jax.nn.softplus(hidden @ p["v"] + p["c"]) @ p["u"]


DEEP = {"w": (4, 6), "b": (6,), "v": (6, 5), "c": (5,), "u": (5, 1)}
DEEP_AXES = {"w": (0,), "b": None, "v": (0,), "c": None, "u": (0,)}


def energy(p, x):
    return network(p, x)[..., 0].sum()


def square(p, x):
    return (network(p, x) ** 2).mean()


def stepped(p, x):
    grads = jax.grad(square)(p, x)
    return jax.tree.map(lambda p, g: p - 0.1 * g, p, grads)


def trained(p, x):
    tx = optax.adamw(1e-2)
    loss, grads = jax.value_and_grad(square)(p, x)
    updates, state = tx.update(grads, tx.init(p), p)
    return optax.apply_updates(p, updates), state, loss


def penalized(p, x):
    slopes = jax.vmap(jax.grad(energy, 1), (None, 0))(p, x)
    return network(p, x).mean() + ((jnp.linalg.norm(slopes, axis=-1) - 1) ** 2).mean()


DERIVATIVES = {
    "a Laplacian, forward over reverse": (
        lambda p, x: jax.vmap(
            lambda x: jnp.trace(jax.jacfwd(jax.grad(lambda x: energy(p, x)))(x))
        )(x),
        DEEP,
        DEEP_AXES,
    ),
    "a gradient behind a comparison": (
        lambda p, x: jax.grad(
            lambda x: (jax.nn.leaky_relu(x @ p["w"] + p["b"]) @ p["v"]).sum()
        )(x),
        {**WITH_BIAS, "v": (6, 1)},
        {**KERNEL_AND_BIAS, "v": (0,)},
    ),
    "forces": (lambda p, x: -jax.grad(energy, 1)(p, x), DEEP, DEEP_AXES),
    "energy and forces": (
        lambda p, x: jax.value_and_grad(energy, 1)(p, x),
        DEEP,
        DEEP_AXES,
    ),
    "a penalty on the slope": (penalized, DEEP, DEEP_AXES),
    "a whole training step": (trained, DEEP, DEEP_AXES),
    "MAML": (lambda p, x: square(stepped(stepped(p, x), x), x), DEEP, DEEP_AXES),
    "a derivative along the inputs": (
        lambda p, x: jax.jvp(lambda x: network(p, x), (x,), (jnp.ones_like(x),)),
        DEEP,
        DEEP_AXES,
    ),
    "layers in a loop, and their gradients": (
        lambda p, x: jax.value_and_grad(
            lambda p: (
                lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["w"])[0] ** 2
            ).sum()
        )(p),
        {"w": (3, 4, 4)},
        {"w": (1,)},
    ),
    "gradients of rematerialized layers": (
        lambda p, x: jax.value_and_grad(jax.checkpoint(square))(p, x),
        DEEP,
        DEEP_AXES,
    ),
}

PIECES = {
    "parts of a joined input": (
        lambda p, x: x[:, :1] @ p["w"][:1] + jnp.sin(x[:, 1:]) @ p["w"][1:] + p["b"],
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "every other row": (
        lambda p, x: sum(
            lax.slice(x, (0, i), (5, 4), (1, 2))
            @ lax.slice(p["w"], (i, 0), (4, 6), (2, 1))
            for i in range(2)
        ),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "outputs in halves": (
        lambda p, x: jnp.concatenate([x @ p["w"][:, :3], x @ p["w"][:, 3:]], -1),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "turned round by two": (
        lambda p, x: x @ jnp.roll(p["w"], (2, -1), (0, 1)) + jnp.roll(p["b"], -1),
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "rows of leaves": (
        lambda p, x: x @ jnp.stack([p["r0"], p["r1"], p["r2"]], -1) * p["s"],
        {"r0": (4,), "r1": (4,), "r2": (4,), "s": (3,)},
        {"r0": (0,), "r1": (0,), "r2": (0,), "s": None},
    ),
    "columns of leaves, joined": (
        lambda p, x: x @ jnp.concatenate([p["a"], p["c"]], 1),
        {"a": (4, 2), "c": (4, 3)},
        {"a": (0,), "c": (0,)},
    ),
    "experts of leaves, one for each example": (
        lambda p, x: jnp.einsum(
            "bi,bio->bo", x, jnp.stack([p["a"], p["c"]])[jnp.argmax(x, -1) % 2]
        ),
        {"a": (4, 6), "c": (4, 6)},
        {"a": (0,), "c": (0,)},
    ),
    "written into zeros": (
        lambda p, x: x @ jnp.zeros((4, 6)).at[:, :].set(p["w"]),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "written into a corner": (
        lambda p, x: (
            jnp.pad(x, ((0, 0), (1, 2)))
            @ (lax.dynamic_update_slice(jnp.zeros((7, 6)), p["w"], (1, 0)))
        ),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "written row by row": (
        lambda p, x: (
            x
            @ lax.fori_loop(
                0, 4, lambda i, k: k.at[i].set(jnp.tanh(p["w"][i])), jnp.zeros((4, 6))
            )
        ),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "heads that are as many as their features": (
        lambda p, x: jnp.einsum(
            "bhk,hko->bo", x.reshape(5, 2, 2), p["w"].reshape(2, 2, 6)
        ),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "pieces mapped, then summed": (
        lambda p, x: jnp.einsum(
            "bhk,hko->hbo", x.reshape(5, 2, 2), p["w"].reshape(2, 2, 6)
        ).sum(0),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "experts mapped, then summed": (
        lambda p, x: jnp.einsum("ebi,eio->ebo", jnp.stack([x, 2 * x]), p["w"]).sum(0),
        {"w": (2, 4, 6)},
        {"w": (1,)},
    ),
    "strewn over a triangle": (
        lambda p, x: x @ jnp.zeros((4, 4)).at[np.tril_indices(4)].set(p["w"]),
        {"w": (10,)},
        {"w": (0,)},
    ),
    "a flat window": (
        lambda p, x: convolved(x[None, :, :, None], p["w"].reshape(3, 3, 1, 6)),
        {"w": (9, 6)},
        {"w": (0,)},
    ),
    "rows, each set": (
        lambda p, x: (
            x
            @ functools.reduce(
                lambda k, i: k.at[i].set(p["w"][i]), range(4), jnp.zeros((4, 6))
            )
        ),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "with zeros in between": (
        lambda p, x: x @ lax.pad(p["w"], 0.0, ((0, 0, 2), (0, 0, 0))),
        {"w": (2, 6)},
        {"w": (0,)},
    ),
    "the mean of an ensemble": (
        lambda p, x: jax.vmap(lambda v, w: jnp.tanh(x @ v) @ w)(p["v"], p["w"]).mean(0),
        {"v": (3, 4, 6), "w": (3, 6, 2)},
        {"v": (1,), "w": (1,)},
    ),
    "splines for each edge, beside another kernel": (
        lambda p, x: (
            p["s"] * jnp.einsum("big,iog->bio", jnp.cos(x[..., None] * LAGS), p["c"])
            + p["w"] * jnp.tanh(x)[..., None]
        ).sum(1),
        {"s": (4, 6), "c": (4, 6, 3), "w": (4, 6)},
        {"s": (0,), "c": DOUBT, "w": (0,)},
    ),
    "half of it alone": (
        lambda p, x: x @ p["w"][:4],
        {"w": (8, 6)},
        {"w": DOUBT},
    ),
    "two layers in one leaf": (
        lambda p, x: jnp.tanh(x @ p["w"][:4]) @ p["w"][4:],
        {"w": (8, 4)},
        {"w": DOUBT},
    ),
}

MOVES = {
    "named": (
        lambda p, x: x @ checkpoint_name(p["w"], "w") + checkpoint_name(p["b"], "b"),
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "behind a barrier": (
        lambda p, x: (lambda w, b: x @ w + b)(
            *lax.optimization_barrier((p["w"], p["b"]))
        ),
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "kept in a mutable array": (
        lambda p, x: x @ jax.new_ref(p["w"])[...] + p["b"],
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "its rows written into a mutable array": (
        lambda p, x: x @ written(p["w"], range(4)),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "its halves written into a mutable array": (
        lambda p, x: x @ written(p["w"], [slice(0, 3), slice(3, 4)]),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "layers read from a mutable array": (
        lambda p, x: functools.reduce(
            lambda x, i: jnp.tanh(x @ jax.new_ref(p["w"])[i]), range(3), x
        ),
        {"w": (3, 4, 4)},
        {"w": (1,)},
    ),
    "its result added to a mutable array": (
        lambda p, x: accumulated(p, x),
        {"w": (3, 4, 6), "b": (6,)},
        {"w": (1,), "b": None},
    ),
}


def written(w, places):
    ref = jax.new_ref(jnp.zeros_like(w))
    for place in places:
        ref[place] = w[place]
    return ref[...]


def accumulated(p, x):
    total = jax.new_ref(jnp.zeros((5, 6)))
    for w in p["w"]:
        total[...] += jnp.tanh(x @ w + p["b"])
    return total[...]


LOOPS = {
    "MAML in a scan": (
        lambda p, x: square(
            lax.scan(lambda q, _: (stepped(q, x), None), p, None, 3)[0], x
        ),
        DEEP,
        DEEP_AXES,
    ),
    "a training loop": (
        lambda p, x: lax.scan(
            lambda q, x: (stepped(q, x), square(q, x)), p, jnp.stack([x, 2 * x])
        ),
        DEEP,
        DEEP_AXES,
    ),
    "a recurrence with a decay for each state": (
        lambda p, x: lax.scan(
            lambda h, x: (
                h := jnp.exp(-jnp.exp(p["a"])) * h + p["u"] * x[:, None],
                (h * p["w"]).sum(-1),
            ),
            jnp.zeros((4, 3)),
            x,
        )[1],
        {"a": (4, 3), "u": (4, 3), "w": (4, 3)},
        {"a": None, "u": None, "w": (1,)},
    ),
    "trained on the way": (
        lambda p, x: lax.scan(
            lambda w, x: (w - 0.1 * jnp.outer(x, jnp.tanh(x @ w)), x @ w), p["w"], x
        )[1],
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "decayed in each turn": (
        lambda p, x: lax.fori_loop(
            0,
            3,
            lambda i, c: (0.9 * c[0], c[1] + x @ c[0]),
            (p["w"], jnp.zeros((5, 6))),
        )[1],
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "turned round in each turn": (
        lambda p, x: lax.fori_loop(
            0,
            3,
            lambda i, c: (jnp.roll(c[0], 1, 1), jnp.tanh(c[1] + x @ c[0])),
            (p["w"], jnp.zeros((5, 6))),
        )[1],
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "a carry of twelve": (
        lambda p, x: lax.scan(
            lambda c, x: ((jnp.tanh(sum(c) @ p["w"] + x), *c[:-1]), None),
            tuple(jnp.zeros(4) for _ in range(12)),
            x,
        )[0],
        {"w": (4, 4)},
        {"w": (0,)},
    ),
    "unrolled": (
        lambda p, x: functools.reduce(
            lambda h, x: jnp.tanh(h @ p["w"] + x), list(x), jnp.zeros(4)
        ),
        {"w": (4, 4)},
        {"w": (0,)},
    ),
}

OF_EXAMPLES = {
    "dropped anew for each example": (
        lambda p, x: jnp.einsum(
            "bi,bio->bo", x, p["w"] * (jnp.sin(x)[:, :, None] > p["w"])
        ),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "noise anew for each example": (
        lambda p, x: jnp.einsum(
            "bi,bio->bo", x, p["w"] + p["s"] * jnp.sin(x[:, :, None] * jnp.arange(6.0))
        ),
        {"w": (4, 6), "s": (4, 6)},
        {"w": (0,), "s": (0,)},
    ),
    "kernels mixed by a softmax": (
        lambda p, x: jnp.einsum(
            "bi,bio->bo",
            x,
            jnp.einsum("be,eio->bio", jax.nn.softmax(x @ p["g"]), p["w"]),
        ),
        {"g": (4, 3), "w": (3, 4, 6)},
        {"g": (0,), "w": (1,)},
    ),
    "results mixed by a softmax": (
        lambda p, x: jnp.einsum(
            "be,beo->bo",
            jax.nn.softmax(x @ p["g"]),
            jnp.einsum("bi,eio->beo", x, p["w"]),
        ),
        {"g": (4, 3), "w": (3, 4, 6)},
        {"g": (0,), "w": (1,)},
    ),
    "a form in two inputs": (
        lambda p, x: jnp.einsum(
            "bj,bjo->bo", jnp.tanh(x), jnp.einsum("bi,ijo->bjo", x, p["w"])
        ),
        {"w": (4, 4, 6)},
        {"w": DOUBT},
    ),
    "values of a memory": (
        lambda p, x: jax.nn.softmax(x @ p["k"].T) @ p["v"],
        {"k": (9, 4), "v": (9, 6)},
        {"k": (1,), "v": (0,)},
    ),
    "a filter for each channel, made by its data": (
        lambda p, x: lax.conv_general_dilated(
            x[None],
            (x.T @ p["w"]).T[:, None],
            (1,),
            "SAME",
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=4,
        ),
        {"w": (5, 3)},
        {"w": (0,)},
    ),
    "a change that another network makes": (
        lambda p, x: jax.vmap(lambda x: x @ (p["w"] + (x @ p["h"]).reshape(4, 6)))(x),
        {"w": (4, 6), "h": (4, 24)},
        {"w": (0,), "h": (0,)},
    ),
}

LINEAR = {
    "a long convolution": (
        lambda p, x: jnp.fft.irfft(
            jnp.fft.rfft(p["w"], n=16, axis=0) * jnp.fft.rfft(x, n=16, axis=0),
            n=16,
            axis=0,
        )[:5],
        {"w": (5, 4)},
        {"w": (0,)},
    ),
    "modes of a spectrum, complex of two leaves": (
        lambda p, x: jnp.fft.irfft(
            jnp.einsum(
                "mi,mio->mo", jnp.fft.rfft(x, axis=0), lax.complex(p["r"], p["i"])
            ),
            n=5,
            axis=0,
        ),
        {"r": (3, 4, 6), "i": (3, 4, 6)},
        {"r": (1,), "i": (1,)},
    ),
    "solved by a constant triangle": (
        lambda p, x: x @ jax.scipy.linalg.solve_triangular(jnp.tril(FOUR), p["w"]),
        {"w": (4, 6)},
        {"w": (0,)},
    ),
    "a blurred kernel": (
        lambda p, x: convolved(
            jnp.stack([x[:4]] * 2)[..., None],
            lax.conv_general_dilated(
                p["w"].transpose(3, 0, 1, 2), jnp.ones((2, 2, 1, 1)) / 4, (1, 1),
                "SAME", None, None, LAYOUT,
            ).transpose(1, 2, 3, 0),
        ),
        {"w": (3, 3, 1, 6)},
        {"w": (0, 1)},
    ),
}  # fmt: skip


def unread(x):
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: x, out, x)


def copied(x_ref, o_ref):
    o_ref[...] = x_ref[...]


def in_pallas(x):
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(copied, out_shape=out, interpret=True)(x)


OPAQUE = {
    "positions before": (
        lambda p, x: in_pallas(x + p["e"]) @ p["w"],
        {"e": (5, 4), "w": (4, 6)},
        {"e": None, "w": (0,)},
    ),
    "a bias before": (
        lambda p, x: unread(x @ p["w"] + p["b"]),
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "an unread kernel behind a table": (
        lambda p, x: p["e"][jnp.argmax(x, -1)] @ unread(p["w"]),
        {"e": (4, 4), "w": (4, 6)},
        {"e": None, "w": DOUBT},
    ),
    "read, and its determinant": (
        lambda p, x: (x @ p["w"], x.sum() + jnp.linalg.slogdet(p["w"])[1]),
        {"w": (4, 4)},
        {"w": (0,)},
    ),
    "read once, unread once": (
        lambda p, x: (x @ p["w"]) + x @ unread(p["w"]),
        {"w": (4, 6)},
        {"w": DOUBT},
    ),
}


def by_hand(x, w):
    return (x[..., None] * w).sum(-2)


def input_by_input(x, w):
    return sum(x[..., i, None] * w[i] for i in range(len(w)))


BY_HAND = {
    "one input's layer before one that is input by input": (
        lambda p, x: input_by_input(jnp.tanh(x[:, :1] * p["w"]), p["v"]),
        {"w": (1, 6), "v": (6, 5)},
        {"w": None, "v": (0,)},
    ),
    "a scale before a layer that is input by input": (
        lambda p, x: input_by_input(x * p["s"], p["w"]),
        {"s": (4,), "w": (4, 6)},
        {"s": None, "w": (0,)},
    ),
    "an adapter of rank one, input by input": (
        lambda p, x: input_by_input(
            jnp.tanh(input_by_input(x, FOUR + p["a"] @ p["c"])), p["w"]
        ),
        {"a": (4, 1), "c": (1, 4), "w": (4, 6)},
        {"a": (0,), "c": None, "w": (0,)},
    ),
    "two adapters by hand": (
        lambda p, x: by_hand(
            jnp.tanh(by_hand(x, FOUR + p["a"] @ p["c"])), FOUR + p["d"] @ p["e"]
        ),
        {"a": (4, 2), "c": (2, 4), "d": (4, 2), "e": (2, 4)},
        {"a": (0,), "c": (0,), "d": (0,), "e": (0,)},
    ),
    "an example alone, input by input": (
        lambda p, x: input_by_input(
            jnp.tanh(input_by_input(x[0], p["w"]) + p["b"]), p["v"]
        ),
        {**WITH_BIAS, "v": (6, 5)},
        {**KERNEL_AND_BIAS, "v": (0,)},
    ),
    "positions of an example alone, before a turn": (
        lambda p, x: ((x + p["e"]) @ FOUR) @ (FOUR.T @ p["w"]),
        {"e": (5, 4), "w": (4, 6)},
        {"e": None, "w": (0,)},
    ),
    "a kernel with noise, before a turn": (
        lambda p, x: jnp.tanh(x @ ((p["w"] + 0.1 * x[:4, :1]) @ FOUR)),
        {"w": (4, 4)},
        {"w": (0,)},
    ),
    "one output, input by input, its summands scaled": (
        lambda p, x: sum(x[:, i, None] * p["w"][i] * p["s"] for i in range(4)),
        {"w": (4,), "s": (6,)},
        {"w": (0,), "s": None},
    ),
    "a scale in front": (
        lambda p, x: ((x * p["s"])[:, :, None] * p["w"]).sum(1),
        {"s": (4,), "w": (4, 6)},
        {"s": None, "w": (0,)},
    ),
    "a scale on the kernel": (
        lambda p, x: (x[:, :, None] * (p["w"] * p["s"][:, None])).mean(1),
        {"s": (4,), "w": (4, 6)},
        {"s": None, "w": (0,)},
    ),
    "a sum of two products": (
        lambda p, x: (x[..., None] * p["w"] + jnp.sin(x)[..., None] * p["v"]).sum(1),
        {"w": (4, 6), "v": (4, 6)},
        {"w": (0,), "v": (0,)},
    ),
    "distances from centers": (
        lambda p, x: jnp.exp(-((x[:, None] - p["c"]) ** 2).sum(-1)) @ p["w"],
        {"c": (3, 4), "w": (3, 6)},
        {"c": None, "w": (0,)},
    ),
    "distances from centers, in their own units": (
        lambda p, x: -(((x[:, None] - p["c"]) * p["s"]) ** 2).sum(-1),
        {"c": (3, 4), "s": (3, 4)},
        {"c": None, "s": None},
    ),
    "a scale and its loss": (
        lambda p, x: (x * p["s"]).sum(),
        {"s": (4,)},
        {"s": None},
    ),
    "taps": (
        lambda p, x: (
            sum(0.5 * jnp.roll(x, i, 0) * p["w"][i] for i in range(3)) + p["b"]
        ),
        {"w": (3, 4), "b": (4,)},
        {"w": (0,), "b": None},
    ),
    "taps in two loops": (
        lambda p, x: lax.fori_loop(
            0,
            2,
            lambda i, y: lax.fori_loop(
                0, 3, lambda j, y: y + jnp.roll(x, (i, j), (0, 1)) @ p["w"][i, j], y
            ),
            jnp.zeros((5, 6)),
        ),
        {"w": (2, 3, 4, 6)},
        {"w": (0, 1, 2)},
    ),
    "layers in a loop, inputs in another": (
        lambda p, x: lax.scan(
            lambda h, w: (
                jnp.tanh(
                    lax.fori_loop(
                        0, 4, lambda i, y: y + h[:, i, None] * w[i], jnp.zeros((5, 4))
                    )
                ),
                None,
            ),
            x,
            p["w"],
        )[0],
        {"w": (3, 4, 4)},
        {"w": (1,)},
    ),
    "taps of matrices": (
        lambda p, x: sum(jnp.roll(x, i, 0) @ p["w"][i] for i in range(3)),
        {"w": (3, 4, 6)},
        {"w": (0, 1)},
    ),
    "heads added up": (
        lambda p, x: sum(x[:, 2 * i : 2 * i + 2] @ p["w"][i] for i in range(2)),
        {"w": (2, 2, 6)},
        {"w": (0, 1)},
    ),
    "taps in a loop": (
        lambda p, x: lax.fori_loop(
            0,
            3,
            lambda i, y: y + jnp.roll(x, i, 0) * p["w"][i],
            jnp.zeros((5, 4)),
        ),
        {"w": (3, 4)},
        {"w": (0,)},
    ),
    "residual layers in one leaf": (
        lambda p, x: functools.reduce(
            lambda h, w: h + jnp.tanh(h) @ w, list(p["w"]), x
        ),
        {"w": (3, 4, 4)},
        {"w": (1,)},
    ),
}

FROZEN = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)


def shared_keys(p, x):
    """Heads that share their keys and values, as in multi-query attention."""
    queries = jnp.einsum("ta,ahc->thc", x, p["q"])
    chosen = jax.nn.softmax(jnp.einsum("thc,kc->htk", queries, x @ p["k"]))
    return jnp.einsum("htk,kc->thc", chosen, x @ p["v"])


def one_query(p, x):
    """Heads of one query for all places, as in AlphaFold's global attention."""
    query = jnp.einsum("a,ahc->hc", x.mean(0), p["q"]) / 2
    chosen = jax.nn.softmax(jnp.einsum("hc,kc->hk", query, x @ p["k"]))
    return jnp.einsum("hk,kc->hc", chosen, x @ p["v"])


def modulated(p, x):
    """A layer whose inputs a style scales and whose outputs are normalized by it."""
    style = jnp.tanh(x @ p["a"])
    scaled = p["w"][None] * style[..., None]
    return (x * style) @ p["w"] * lax.rsqrt((scaled**2).sum(1) + 1e-8)


ATTENTION = {"q": (4, 3, 6), "k": (4, 6), "v": (4, 6)}
ATTENDED = dict.fromkeys(ATTENTION, (0,))
AGAIN = {
    "keys that heads share": (shared_keys, ATTENTION, ATTENDED),
    "one query for all places": (one_query, ATTENTION, ATTENDED),
    "a kernel's norm with a style": (
        modulated, {"a": (4, 4), "w": (4, 6)}, {"a": (0,), "w": (0,)},
    ),
    "a square of what is scaled": (
        lambda p, x: (((x - p["m"]) * p["s"]) ** 2).sum(-1),
        {"m": (4,), "s": (4,)},
        {"m": None, "s": None},
    ),
}  # fmt: skip
LOW_RANK = {"a": (4, 2), "c": (2, 6)}
ADAPTED = {
    "beside a constant": (
        lambda p, x: x @ (FROZEN + 2.0 * p["a"] @ p["c"]),
        LOW_RANK,
        {"a": (0,), "c": (0,)},
    ),
    "outputs first": (
        lambda p, x: x @ (FROZEN.T + p["c"].T @ p["a"].T).T,
        LOW_RANK,
        {"a": (0,), "c": (0,)},
    ),
    "apart": (
        lambda p, x: x @ FROZEN + (x @ p["a"]) @ p["c"],
        LOW_RANK,
        {"a": (0,), "c": (0,)},
    ),
    "beside a diagonal": (
        lambda p, x: x[:, [0, 1, 2, 3, 0, 1]] @ (jnp.diag(p["d"]) + p["a"] @ p["c"]),
        {"d": (6,), "a": (6, 2), "c": (2, 6)},
        {"d": None, "a": (0,), "c": (0,)},
    ),
    "of full rank: queries and their positions": (
        lambda p, x: attend(p["q"] @ p["w"] + SIX[:3], x @ p["k"]),
        {"q": (3, 4), "w": (4, 6), "k": (4, 6)},
        {"q": DOUBT, "w": DOUBT, "k": (0,)},
    ),
    "with a magnitude for each output": (
        lambda p, x: (
            x @ (p["m"] * unit(FROZEN + p["a"] @ p["c"])),
            x @ (p["m"] * unit(p["w"] + p["a"] @ p["c"])),
        ),
        {"w": (4, 6), "m": (6,), **LOW_RANK},
        {"w": (0,), "m": None, "a": (0,), "c": (0,)},
    ),
    "beside a stopped leaf": (
        lambda p, x: x @ (lax.stop_gradient(p["w"]) + p["a"] @ p["c"]),
        {"w": (4, 6), **LOW_RANK},
        {"w": None, "a": (0,), "c": (0,)},
    ),
}

PLACES = np.array([0, 1, 1, 2, 2])  # of degrees, among their orders
COUPLED = jnp.asarray(RNG.normal(size=(4, 5)), jnp.float32)


def coupled(p, x):
    """Two inputs, the orders of whose degrees a kernel has in common."""
    one = x[:, :, None] * COUPLED
    other = x[:, :2, None] * COUPLED[:2]
    product = jnp.einsum("tlm,lqm->tqm", one, p["w"][:, :, PLACES])
    return jnp.einsum("tqm,tqm->t", product, other)


def channels(x):
    return jnp.stack([x, jnp.sin(x), x**2], -1)


def hypernetwork(p, x):
    """A layer of one output, whose kernel another one makes, for a single example."""
    made = x[0] @ p["w"] + p["b"]
    return x[0] @ made[:4] + made[4]


def triangular(p, x):
    """A flow by a triangular matrix with a positive diagonal, and its determinant."""
    matrix, places = jnp.tril(p["w"]), np.arange(4)
    matrix = matrix.at[places, places].set(jax.nn.softplus(jnp.diag(matrix)))
    return x @ matrix.T, (x**2).sum(-1) + jnp.log(jnp.diag(matrix)).sum()


ONE_SUM = {
    "one-hot rows side by side": (
        lambda p, x: jax.nn.one_hot(x.astype(int), 3).reshape(5, 12) @ p["w"],
        {"w": (12, 6)},
        {"w": (0,)},
    ),
    "one-hot rows side by side, summed apart": (
        lambda p, x: (
            jax.nn.one_hot(x.astype(int), 3).reshape(5, 12, 1) * p["w"]
        ).reshape(5, 4, 3, 6).sum(2),
        {"w": (12, 6)},
        {"w": None},
    ),
    "one-hot rows of all examples": (
        lambda p, x: jax.nn.one_hot(x.astype(int), 3).reshape(20, 3) @ p["w"],
        {"w": (3, 6)},
        {"w": None},
    ),
    "two inputs with an axis in common": (
        coupled, {"w": (4, 2, 3)}, {"w": (0, 1, 2)},
    ),
    "a scale that a constant sums over": (
        lambda p, x: jnp.einsum("tic,io->toc", channels(x) * p["s"], FROZEN),
        {"s": (4, 3)},
        {"s": DOUBT},
    ),
    "the bias of a kernel that is made": (
        hypernetwork, {"w": (4, 5), "b": (5,)}, {"w": (0,), "b": None},
    ),
    "a diagonal that is put back": (triangular, {"w": (4, 4)}, {"w": (1,)}),
}  # fmt: skip

KINDS = {
    "learned inputs": LEARNED_INPUTS,
    "constants": CONSTANTS,
    "derivatives": DERIVATIVES,
    "pieces": PIECES,
    "moves": MOVES,
    "loops": LOOPS,
    "of examples": OF_EXAMPLES,
    "linear": LINEAR,
    "opaque": OPAQUE,
    "by hand": BY_HAND,
    "adapted": ADAPTED,
    "again": AGAIN,
    "one sum": ONE_SUM,
}
PROGRAMS = {
    f"{kind}: {name}": program
    for kind, programs in KINDS.items()
    for name, program in programs.items()
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_read(name):
    f, params, axes = PROGRAMS[name]
    assert read(f, shapes(**params), X) == axes


CLOSURES = {
    "a loss": (
        lambda p: ((network(p, BATCH) - LABELS[:, :1]) ** 2).mean(),
        DEEP,
        DEEP_AXES,
    ),
    "one linear layer": (
        lambda p: ((BATCH @ p["w"] + p["b"] - LABELS) ** 2).mean(),
        WITH_BIAS,
        KERNEL_AND_BIAS,
    ),
    "a table": (
        lambda p: (p["e"][np.array([1, 3, 3])] @ p["w"]).sum(),
        {"e": (5, 4), "w": (4, 6)},
        {"e": None, "w": (0,)},
    ),
    "a grid that the program makes": (
        lambda p: (jnp.tanh(jnp.arange(5.0)[:, None] * p["w"] + p["b"]) @ p["v"]).sum(),
        {"w": (6,), "b": (6,), "v": (6, 3)},
        {"w": None, "b": None, "v": (0,)},
    ),
    "an image": (
        lambda p: convolved(jnp.asarray(RNG.normal(size=(1, 8, 8, 4))), p["w"]).sum(),
        {"w": (3, 3, 4, 6)},
        {"w": (0, 1, 2)},
    ),
}


@pytest.mark.parametrize("name", CLOSURES)
def test_without_arrays_among_the_arguments_the_closure_holds_the_data(name):
    f, params, axes = CLOSURES[name]
    assert read(f, shapes(**params)) == axes


def test_an_argument_that_no_parameter_meets_is_not_the_data():
    def f(p, key):
        return ((network(p, BATCH) - LABELS[:, :1]) ** 2).mean() + key.sum()

    assert read(f, shapes(**DEEP), X) == DEEP_AXES


class Layer(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((4, 6)))


def tied_nnx():
    class Tied(nnx.Module):
        def __init__(self):
            self.one, self.two = Layer(), Layer()
            self.two.kernel = self.one.kernel

        def __call__(self, x):
            return jnp.tanh(x @ self.one.kernel[...]) @ self.two.kernel[...].T

    return Tied()


def tied_equinox():
    eqx = pytest.importorskip("equinox", exc_type=Exception)

    class Tied(eqx.Module):
        one: eqx.nn.Linear
        two: eqx.nn.Linear

        def __call__(self, x):
            return jnp.tanh(x @ self.one.weight) @ self.two.weight.T

    layer = eqx.nn.Linear(6, 4, use_bias=False, key=jax.random.key(0))
    return Tied(layer, layer)


@pytest.mark.parametrize("make", [tied_nnx, tied_equinox])
def test_a_variable_under_two_paths_keeps_its_doubt(make):
    model = make()
    found = read(lambda model, x: model(x), model, X)
    assert set(found.values()) == {DOUBT}


def test_leaves_that_only_share_their_array_are_two():
    array = jnp.ones((4, 4))
    found = read(lambda p, x: jnp.tanh(x @ p[0]) @ p[1].T, [array, array], X)
    assert found == {"0": (0,), "1": (1,)}


def test_a_shard_that_is_gathered_is_the_kernel():
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((1,), ("d",), axis_types=auto)

    def f(p, x):
        def local(w, x):
            return lax.psum(x @ lax.all_gather(w, "d", axis=0, tiled=True), "d")

        return jax.shard_map(
            local, mesh=mesh, in_specs=(jax.P("d"), jax.P()), out_specs=jax.P(),
            check_vma=False,
        )(p["w"], x)  # fmt: skip

    assert read(f, shapes(w=(4, 6)), X) == {"w": (0,)}


def test_derivatives_alone_say_to_trace_the_forward_pass():
    def f(p, x):
        backward = jax.vjp(lambda x: jnp.tanh(x @ p["w"]) @ p["v"], x)[1]
        return lax.scan(lambda g, _: (backward(g)[0] @ SIX[:4], None), LABELS, None, 2)

    params = shapes(w=(4, 6), v=(6, 6))
    rows = {r.path: r for r in describe(params, traced_fan_in(f, params, X)).rows}
    assert rows["w"].axes == (0,)
    assert rows["v"].axes == (0,) or "trace the forward pass" in rows["v"].doubt


# Messages.


def test_what_no_policy_can_follow_is_told_with_what_to_do():
    params = {"w": jnp.ones((4, 6), jnp.complex64)}
    axes = traced_fan_in(lambda p, x: jnp.abs(x @ p["w"]), params, X)
    chain = optax.chain(centralize_gradients(axes), optax.sgd(0.1))
    with pytest.raises(
        ValueError, match="before and outside of what splits complex leaves"
    ):
        optax.contrib.split_real_and_imaginary(chain).init(params)
    with pytest.raises(ValueError, match="before and outside of that"):
        optax.flatten(chain).init(params)


def test_two_leaves_of_one_path_are_an_error_that_names_it():
    params = {"a/b": {"w": jnp.ones((4, 6))}, "a": {"b/w": jnp.ones((6, 4))}}
    with pytest.raises(ValueError, match="have the path 'a/b/w'"):
        traced_fan_in(lambda p, x: x @ p["a/b"]["w"], params, X)


def test_leaves_that_are_not_used_are_counted():
    def f(p, x):
        return x @ p["w"] + lax.stop_gradient(x @ p["frozen"])

    params = shapes(w=(4, 6), frozen=(4, 6), head=(6, 2))
    note = describe(params, traced_fan_in(f, params, X)).notes[-1]
    assert note == (
        "In what was traced, of 3 leaves 1 is never used and 1 is behind "
        "stop_gradient. If they are trained, trace the loss that is."
    )


# Cost.


@pytest.mark.parametrize("depth", [3, 6])
def test_a_program_that_is_called_again_is_read_once(depth, monkeypatch):
    read_equations = []
    apply = _walk.Walk._apply

    def counted(walk, eqn, values):
        read_equations.append(eqn)
        return apply(walk, eqn, values)

    monkeypatch.setattr(_walk.Walk, "_apply", counted)

    def level(k, p):
        if k == 0:
            return lambda h: jnp.tanh(h @ p["w"])
        inner = jax.jit(level(k - 1, p))
        return lambda h: lax.scan(
            lambda h, _: (inner(inner(h)), None), h, None, length=2
        )[0]

    assert read(lambda p, x: level(depth, p)(x), shapes(w=(4, 4)), X) == {"w": (0,)}
    assert len(read_equations) < 40 * depth
