"""The fan-in axes of real modules, by hand, and real training with each library."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

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


# Training. Without decay SGD leaves each fan-in mean where it was, and only there.

INPUTS = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (8, 6, 6, 3)), jnp.float32)
TX = optax.chain(centralize_gradients(), optax.sgd(0.1, momentum=0.9))


def assert_trained_with_conserved_means(before, after, axes):
    before, after = np.asarray(before), np.asarray(after)
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(after.mean(axes), before.mean(axes), atol=1e-6)


def mean_square(outputs):
    return jnp.mean((outputs - 1.0) ** 2)


def test_training_a_linen_model_through_a_train_state():
    model = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Dense(2)])
    params = model.init(KEY, INPUTS)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=TX)

    @jax.jit
    def step(state):
        def loss(params):
            return mean_square(state.apply_fn({"params": params}, INPUTS))

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    with jax.numpy_rank_promotion("allow"):
        for _ in range(5):
            state = step(state)
    for name, axes in {"layers_0": (0, 1, 2), "layers_2": (0,)}.items():
        before, after = params[name]["kernel"], state.params[name]["kernel"]
        assert_trained_with_conserved_means(before, after, axes)


def test_training_a_partitioned_linen_model():
    model = nn.Dense(4, kernel_init=PARTITIONED)
    params = model.init(KEY, INPUTS)

    def loss(params):
        return mean_square(model.apply(params, INPUTS))

    grads = jax.grad(loss)(params)
    updates, _ = TX.update(grads, TX.init(params), params)
    after = optax.apply_updates(params, updates)
    kernel = after["params"]["kernel"]
    assert isinstance(kernel, nn.Partitioned)
    assert_trained_with_conserved_means(
        params["params"]["kernel"].value, kernel.value, 0
    )


def test_training_an_nnx_model_through_its_optimizer():
    tokens = jnp.arange(10)[None]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = Network(nnx.Rngs(0))
        before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model)))
        optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            grads = nnx.grad(lambda model: mean_square(model(tokens)))(model)
            optimizer.update(model, grads)

        for _ in range(5):
            step(model, optimizer)
    after = nnx.to_pure_dict(nnx.state(model))
    for name, axes in {"query": 0, "out": (0, 1)}.items():
        assert_trained_with_conserved_means(
            before["attention"][name]["kernel"],
            after["attention"][name]["kernel"],
            axes,
        )
    assert_trained_with_conserved_means(
        before["layers"][0]["kernel"], after["layers"][0]["kernel"], 0
    )


def test_training_a_haiku_model():
    model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 2])(x)))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = model.init(KEY, INPUTS)
        grads = jax.grad(lambda params: mean_square(model.apply(params, INPUTS)))(
            params
        )
    updates, _ = TX.update(grads, TX.init(params), params)
    after = optax.apply_updates(params, updates)
    layer = "mlp/~/linear_0"
    assert_trained_with_conserved_means(params[layer]["w"], after[layer]["w"], 0)


def test_training_an_equinox_model():
    model = eqx.nn.MLP(3, 2, 8, 1, key=KEY)
    params = eqx.filter(model, eqx.is_inexact_array)

    @eqx.filter_grad
    def gradient(model):
        return mean_square(jax.vmap(model)(INPUTS[0, 0]))

    updates, _ = TX.update(gradient(model), TX.init(params), params)
    after = eqx.apply_updates(model, updates)
    for before, trained in zip(model.layers, after.layers, strict=True):
        assert_trained_with_conserved_means(before.weight, trained.weight, 1)


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


def test_nnx_is_read_from_the_traced_model():
    model = nnx.Sequential(
        nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.LayerNorm(8, rngs=nnx.Rngs(0))
    )
    graph, params = nnx.split(model, nnx.Param)
    axes = traced_fan_in(lambda p, x: nnx.merge(graph, p)(x), params, jnp.ones((5, 4)))
    assert {row.path: row.axes for row in describe(params, axes).rows} == {
        "layers/0/bias": None,
        "layers/0/kernel": (0,),
        "layers/1/bias": None,
        "layers/1/scale": None,
    }
