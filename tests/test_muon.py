"""The axes of each leaf in the form that `optax.contrib.muon` takes."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from optax.contrib import MuonDimensionNumbers

from optax_gc import describe, muon_dimension_numbers, traced_fan_in


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        up = self.param("experts", nn.initializers.lecun_normal(), (3, 8, 6))
        down = self.param("experts_out", nn.initializers.lecun_normal(), (3, 6, 8))
        gates = nn.softmax(nn.Dense(3, name="router")(x))
        shares = jnp.einsum("btd,bte->ebtd", x, gates)  # what each expert sees
        hidden = nn.gelu(jnp.einsum("ebtd,edh->ebth", shares, up))
        return x + jnp.einsum("ebth,ehd->ebtd", hidden, down).sum(0), None


class Model(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8, name="embed")(tokens)
        layers = nn.scan(Block, {"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = layers(name="layers")(x, None)
        return nn.Dense(11, name="logits")(x)


@pytest.fixture(autouse=True)
def _promoting_as_optax_does():
    with jax.numpy_dtype_promotion("standard"):
        yield


TOKENS = jnp.arange(10).reshape(2, 5)


@pytest.fixture(scope="module")
def model():
    params = Model().init(jax.random.key(0), TOKENS)["params"]

    def apply(params, tokens):
        return Model().apply({"params": params}, tokens)

    return apply, params, traced_fan_in(apply, params, TOKENS)


def by_path(tree):
    keyed = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: x is None or isinstance(x, MuonDimensionNumbers)
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in keyed
    }


def test_the_numbers_are_those_written_by_hand(model):
    _, params, axes = model
    projection = MuonDimensionNumbers((1,), (2, 3))  # (layers, D, heads, head_dim)
    matrix = MuonDimensionNumbers((0,), (1,))
    by_hand = {
        "layers/attention/query/kernel": projection,
        "layers/attention/key/kernel": projection,
        "layers/attention/value/kernel": projection,
        "layers/attention/out/kernel": MuonDimensionNumbers((1, 2), (3,)),
        "layers/router/kernel": MuonDimensionNumbers((1,), (2,)),
        "layers/experts": MuonDimensionNumbers((2,), (3,)),  # (layers, experts, D, H)
        "layers/experts_out": MuonDimensionNumbers((2,), (3,)),
        "logits/kernel": matrix,
    }
    found = by_path(muon_dimension_numbers(params, axes))
    assert {path: n for path, n in found.items() if n is not None} == by_hand
    assert found.keys() == by_path(params).keys()


def test_muon_trains_with_them(model):
    apply, params, axes = model
    numbers = muon_dimension_numbers(params, {"logits/*": None, "*": axes})
    tx = optax.contrib.muon(0.02, muon_weight_dimension_numbers=numbers)

    def loss(params):
        logits = apply(params, TOKENS)
        targets = jnp.roll(TOKENS, -1, axis=1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return losses.mean()

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    trained = params
    for _ in range(30):
        trained, state, value = step(trained, state)
        losses.append(value)
    assert losses[-1] < losses[0] / 2
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), params, trained)
    assert min(by_path(moved).values()) > 0


def test_an_update_of_muon_is_orthogonal_from_each_head_s_inputs_to_its_outputs(model):
    _, params, axes = model
    numbers = muon_dimension_numbers(params, axes)
    tx = optax.contrib.muon(1.0, muon_weight_dimension_numbers=numbers)
    grads = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(1), x.shape), params
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    kernels = updates["layers"]["attention"]["query"]["kernel"].reshape(2, 8, 8)
    for kernel in kernels:
        singular = jnp.linalg.svd(kernel / jnp.abs(kernel).max(), compute_uv=False)
        assert singular[0] / singular[-1] < 4


def test_what_is_in_doubt_is_left_to_adam():
    def tied(params, tokens):
        return params["table"][tokens] @ params["table"].T

    params = {"table": jnp.ones((11, 8))}
    axes = traced_fan_in(tied, params, TOKENS)
    assert describe(params, axes).rows[0].doubt
    assert muon_dimension_numbers(params, axes) == {"table": None}


def test_a_kernel_of_one_output_is_no_matrix():
    axes = traced_fan_in(lambda p, x: x @ p["w"], {"w": jnp.ones(4)}, jnp.ones((3, 4)))
    assert muon_dimension_numbers({"w": jnp.ones(4)}, axes) == {"w": None}


def test_the_guess_serves_too():
    params = {"kernel": jnp.ones((3, 8, 6)), "bias": jnp.ones((3, 6))}
    numbers = muon_dimension_numbers(params)
    assert numbers == {"kernel": MuonDimensionNumbers((1,), (2,)), "bias": None}
