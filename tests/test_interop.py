"""The fan-in axes of each library's modules are guessed and read as by hand."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from optax_gc import centralize_gradients, describe, traced_fan_in

KEY = jax.random.key(0)
SEQUENCE = jax.ShapeDtypeStruct((2, 10, 16), jnp.float32)
IMAGE = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 10), jnp.int32)


def centralized(params):
    """Returns the axes of each leaf that is not left alone."""
    rows = describe(params).rows
    return {row.path: row.axes for row in rows if row.axes is not None}


def in_doubt(params):
    return {row.path for row in describe(params).rows if row.doubt}


ATTENTION = {"key": (0,), "out": (0, 1), "query": (0,), "value": (0,)}
ATTENTION = {f"{name}/kernel": axes for name, axes in ATTENTION.items()}
PARTITIONED = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))

LINEN = {
    "Dense": (nn.Dense(4), SEQUENCE, {"kernel": (0,)}),
    "Dense(1)": (nn.Dense(1), SEQUENCE, {"kernel": (0,)}),
    "Dense partitioned": (
        nn.Dense(4, kernel_init=PARTITIONED),
        SEQUENCE,
        {"kernel": (0,)},
    ),
    "Conv": (nn.Conv(8, (3, 3)), IMAGE, {"kernel": (0, 1, 2)}),
    "Conv without bias": (
        nn.Conv(8, (3, 3), use_bias=False),
        IMAGE,
        {"kernel": (0, 1, 2)},
    ),
    "Conv 1d": (nn.Conv(8, (3,)), SEQUENCE, {"kernel": (0, 1)}),
    "Conv depthwise": (
        nn.Conv(8, (3, 3), feature_group_count=4),
        IMAGE,
        {"kernel": (0, 1, 2)},
    ),
    "ConvLocal": (nn.ConvLocal(8, (3, 3)), IMAGE, {"kernel": (2,)}),
    "ConvTranspose": (nn.ConvTranspose(8, (3, 3)), IMAGE, {"kernel": (0, 1, 2)}),
    "ConvTranspose with transpose_kernel": (
        nn.ConvTranspose(8, (3, 3), transpose_kernel=True),
        IMAGE,
        {"kernel": (0, 1, 3)},
    ),
    "DenseGeneral to two axes": (nn.DenseGeneral((4, 2)), SEQUENCE, {"kernel": (0,)}),
    "DenseGeneral from two axes": (
        nn.DenseGeneral(4, axis=(-2, -1)),
        SEQUENCE,
        {"kernel": (0, 1)},
    ),
    "DenseGeneral of a batch": (
        nn.DenseGeneral(4, batch_dims=(0,)),
        SEQUENCE,
        {"kernel": (1,)},
    ),
    "Einsum": (nn.Einsum((16, 2, 8), "ntd,dhk->nthk"), SEQUENCE, {"kernel": (0,)}),
    "attention": (nn.MultiHeadDotProductAttention(4), SEQUENCE, ATTENTION),
    "attention without bias": (
        nn.MultiHeadDotProductAttention(4, use_bias=False),
        SEQUENCE,
        ATTENTION,
    ),
    "Embed": (nn.Embed(10, 4), TOKENS, {}),
    "LSTM": (
        nn.RNN(nn.OptimizedLSTMCell(8)),
        SEQUENCE,
        {f"cell/{i}{gate}/kernel": (0,) for i in "ih" for gate in "ifgo"},
    ),
    "LayerNorm": (nn.LayerNorm(), SEQUENCE, {}),
    "BatchNorm": (nn.BatchNorm(use_running_average=False), SEQUENCE, {}),
}


@pytest.mark.parametrize(("module", "inputs", "axes"), LINEN.values(), ids=LINEN)
def test_linen(module, inputs, axes):
    params = jax.eval_shape(module.init, KEY, inputs)["params"]
    assert centralized(params) == axes
    assert not in_doubt(params)


class Block(nn.Module):
    use_bias: bool = True

    @nn.compact
    def __call__(self, x, _):
        attention = nn.MultiHeadDotProductAttention(4, use_bias=self.use_bias)
        x = x + attention(nn.LayerNorm()(x))
        return nn.Dense(16, use_bias=self.use_bias)(x), None


def scanned(axis, **kwargs):
    stack = nn.scan(Block, {"params": axis}, split_rngs={"params": True}, length=3)
    return jax.eval_shape(stack(**kwargs).init, KEY, SEQUENCE, None)["params"]


def test_linen_scan_stacks_layers_on_the_first_axis():
    assert centralized(scanned(0)) == {
        "Dense_0/kernel": (1,),
        "MultiHeadDotProductAttention_0/key/kernel": (1,),
        "MultiHeadDotProductAttention_0/out/kernel": (1, 2),
        "MultiHeadDotProductAttention_0/query/kernel": (1,),
        "MultiHeadDotProductAttention_0/value/kernel": (1,),
    }
    assert not in_doubt(scanned(0))


def test_linen_scan_stacks_layers_on_another_axis():
    axes = centralized(scanned(1))
    assert axes["MultiHeadDotProductAttention_0/query/kernel"] == (0,)
    assert axes["MultiHeadDotProductAttention_0/out/kernel"] == (0, 2)
    assert axes["Dense_0/kernel"] == (0,)


def test_linen_scan_without_a_bias_is_in_doubt():
    params = scanned(0, use_bias=False)
    assert in_doubt(params) == set(centralized(params))
    assert centralized(params)["MultiHeadDotProductAttention_0/out/kernel"] == (1, 2)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(10, 16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.conv = nnx.Conv(16, 8, (3,), rngs=rngs)
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs)])
        self.general = nnx.LinearGeneral(8, (2, 3), rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = self.conv(self.norm(x + self.attention(x)))
        return self.general(self.layers[0](x))


NETWORK = {f"attention/{path}": axes for path, axes in ATTENTION.items()} | {
    "conv/kernel": (0, 1),
    "general/kernel": (0,),
    "layers/0/kernel": (0,),
}


@pytest.mark.parametrize(
    "tree",
    [nnx.state, lambda model: nnx.to_pure_dict(nnx.state(model)), lambda model: model],
    ids=["state", "pure-dict", "module"],
)
def test_nnx(tree):
    params = tree(nnx.eval_shape(lambda: Network(nnx.Rngs(0))))
    assert centralized(params) == NETWORK
    assert not in_doubt(params)


def haiku_modules(x, image):
    hk.Linear(4)(x)
    hk.Linear(4, with_bias=False, name="no_bias")(x)
    hk.Conv2D(8, 3)(image)
    hk.Conv2DTranspose(8, 3)(image)
    hk.DepthwiseConv2D(2, 3)(image)
    hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
    hk.BatchNorm(True, True, 0.9)(x, is_training=True)
    hk.Embed(10, 4)(jnp.zeros((2,), int))
    hk.LSTM(8)(x[:, 0], hk.LSTM(8).initial_state(2))
    hk.GRU(8)(x[:, 0], jnp.zeros((2, 8)))
    hk.MultiHeadAttention(4, 4, w_init=hk.initializers.Constant(1.0))(x, x, x)


def test_haiku():
    init = hk.transform_with_state(haiku_modules).init
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params, _ = jax.eval_shape(init, KEY, SEQUENCE, IMAGE)
    assert centralized(params) == {
        "linear/w": (0,),
        "no_bias/w": (0,),
        "conv2_d/w": (0, 1, 2),
        "conv2_d_transpose/w": (0, 1, 3),
        "depthwise_conv2_d/w": (0, 1, 2),
        "lstm/linear/w": (0,),
        "gru/w_h": (0,),
        "gru/w_i": (0,),
        "multi_head_attention/key/w": (0,),
        "multi_head_attention/linear/w": (0,),
        "multi_head_attention/query/w": (0,),
        "multi_head_attention/value/w": (0,),
    }


def ensemble(key):
    return eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 5, key=key))(
        jax.random.split(key, 3)
    )


EQUINOX = {
    "Linear": (lambda: eqx.nn.Linear(4, 5, key=KEY), {"weight": (1,)}),
    "square Linear": (lambda: eqx.nn.Linear(5, 5, key=KEY), {"weight": (1,)}),
    "Linear without bias": (
        lambda: eqx.nn.Linear(4, 5, use_bias=False, key=KEY),
        {"weight": (1,)},
    ),
    "ensemble of Linear": (lambda: ensemble(KEY), {"weight": (2,)}),
    "Conv": (lambda: eqx.nn.Conv2d(3, 4, 3, key=KEY), {"weight": (1, 2, 3)}),
    "Conv depthwise": (
        lambda: eqx.nn.Conv2d(4, 4, 3, groups=4, key=KEY),
        {"weight": (1, 2, 3)},
    ),
    "ConvTranspose": (
        lambda: eqx.nn.ConvTranspose2d(3, 4, 3, key=KEY),
        {"weight": (1, 2, 3)},
    ),
    "attention": (
        lambda: eqx.nn.MultiheadAttention(4, 16, key=KEY),
        {f"{name}_proj/weight": (1,) for name in ("query", "key", "value", "output")},
    ),
    "LSTM": (
        lambda: eqx.nn.LSTMCell(4, 8, key=KEY),
        {"weight_hh": (1,), "weight_ih": (1,)},
    ),
    "GRU": (
        lambda: eqx.nn.GRUCell(4, 8, key=KEY),
        {"weight_hh": (1,), "weight_ih": (1,)},
    ),
    "LayerNorm": (lambda: eqx.nn.LayerNorm((4, 3)), {}),
    "MLP": (
        lambda: eqx.nn.MLP(4, 5, 6, 2, key=KEY),
        {f"layers/{i}/weight": (1,) for i in range(3)},
    ),
    "Embedding": (lambda: {"embedding": eqx.nn.Embedding(10, 4, key=KEY)}, {}),
}


@pytest.mark.parametrize(("make", "axes"), EQUINOX.values(), ids=EQUINOX)
def test_equinox(make, axes):
    params = eqx.filter_eval_shape(make)
    shapes = eqx.filter(params, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    assert centralized(shapes) == axes
    assert not in_doubt(shapes)


def test_a_partitioned_linen_model_is_trained_with_its_means_at_rest():
    model, inputs = nn.Dense(4, kernel_init=PARTITIONED), jnp.eye(8, 3)
    tx = optax.chain(centralize_gradients(), optax.sgd(0.1))
    before = model.init(KEY, inputs)

    def loss(params):
        return jnp.mean((model.apply(params, inputs) - 1) ** 2)

    updates, _ = tx.update(jax.grad(loss)(before), tx.init(before), before)
    after = optax.apply_updates(before, updates)["params"]["kernel"]
    assert isinstance(after, nn.Partitioned)
    moved = after.value - before["params"]["kernel"].value
    assert jnp.abs(moved).max() > 1e-4
    np.testing.assert_allclose(moved.mean(0), 0, atol=1e-6)


def test_haiku_is_read_from_the_traced_model():
    def forward(x):
        x = hk.Conv2DTranspose(4, 3, name="up")(x)
        return hk.Linear(3, name="head")(x.mean((1, 2)))

    net = hk.transform(forward)
    images = jnp.zeros((2, 8, 8, 4))
    params = net.init(jax.random.key(0), images)
    found = describe(params, traced_fan_in(net.apply, params, None, images)).rows
    assert {row.path: row.axes for row in found} == {
        "head/b": None,
        "head/w": (0,),
        "up/b": None,
        "up/w": (0, 1, 3),
    }


def test_equinox_is_read_from_the_traced_model():
    class Model(eqx.Module):
        table: eqx.nn.Embedding
        mlp: eqx.nn.MLP

        def __call__(self, token):
            return self.mlp(self.table(token))

    keys = jax.random.split(jax.random.key(0))
    model = Model(
        eqx.nn.Embedding(9, 4, key=keys[0]), eqx.nn.MLP(4, 3, 8, 1, key=keys[1])
    )
    axes = traced_fan_in(lambda m, x: jax.vmap(m)(x), model, jnp.zeros(5, jnp.int32))
    found = describe(model, axes).rows
    axes = {r.path: r.axes for r in found if r.axes or "weight" in r.path}
    assert axes == {
        "mlp/layers/0/weight": (1,),
        "mlp/layers/1/weight": (1,),
        "table/weight": None,
    }
    assert not any(row.doubt for row in found)
