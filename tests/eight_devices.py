"""Centralizing sharded trees; `test_sharding.py` runs this on eight host devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from optax_gc import centralize_gradients, removed_energy, sharpness

GC = centralize_gradients()
COLLECTIVE = r"= (\S+) (all-reduce|all-gather|all-to-all|collective-permute|\S*scatter)"


@pytest.fixture(scope="module", params=["Auto", "Explicit"])
def mesh(request):
    assert jax.device_count() == 8
    return jax.make_mesh((8,), ("x",), axis_types=(AxisType[request.param],))


def collectives(compiled):
    """Returns the operation, dtype and number of elements of each collective."""
    found = []
    for result, operation in re.findall(COLLECTIVE, compiled.as_text()):
        dtype, dims = re.match(r"\(?(\w+)\[([\d,]*)\]", result).groups()
        found.append((operation, dtype, int(np.prod([*map(int, dims.split(","))]))))
    return found


def place(mesh, tree, specs):
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    return jax.device_put(tree, shardings)


def layer(shape, bias, dtype="float32"):
    kernel = np.random.default_rng(0).normal(1, 1, shape)
    return {"kernel": jnp.asarray(kernel).astype(dtype), "bias": jnp.ones(bias, dtype)}


OUTPUTS = {
    "dense": (P(None, "x"), (24, 16), (16,)),
    "conv": (P(None, None, None, "x"), (3, 3, 8, 16), (16,)),
    "attention": (P(None, "x", None), (24, 8, 4), (8, 4)),
    "stack": (P("x", None, None), (8, 24, 16), (8, 16)),
}
FAN_IN = {
    "dense": (P("x", None), (24, 16), (16,), 16),
    "one-row-each": (P("x", None), (8, 16), (16,), 16),
    "conv": (P(None, None, "x", None), (3, 3, 8, 16), (16,), 16),
    "attention": (P("x", None, None), (24, 8, 4), (8, 4), 32),
}


@pytest.mark.parametrize(("spec", "shape", "bias"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_kernel_sharded_on_its_outputs_costs_no_collective(mesh, spec, shape, bias):
    plain = layer(shape, bias)
    sharded = place(mesh, plain, {"kernel": spec, "bias": P()})
    step = jax.jit(lambda grads: GC.update(grads, optax.EmptyState())[0])
    assert collectives(step.lower(sharded).compile()) == []
    got = step(sharded)["kernel"]
    np.testing.assert_allclose(got, step(plain)["kernel"], atol=1e-6)
    assert got.sharding.is_equivalent_to(sharded["kernel"].sharding, len(shape))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("spec", "shape", "bias", "outputs"), FAN_IN.values(), ids=FAN_IN
)
def test_a_kernel_sharded_on_its_fan_in_costs_one_all_reduce_of_its_outputs(
    mesh, spec, shape, bias, outputs, dtype
):
    plain = layer(shape, bias, dtype)
    sharded = place(mesh, plain, {"kernel": spec, "bias": P()})
    step = jax.jit(lambda grads: GC.update(grads, optax.EmptyState())[0])
    compiled = step.lower(sharded).compile()
    assert collectives(compiled) == [("all-reduce", "f32", outputs)]
    got = step(sharded)["kernel"].astype("float32")
    expected = step(plain)["kernel"].astype("float32")
    tolerance = 1e-6 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(got, expected, atol=tolerance)


def test_an_optimizer_behind_it_adds_no_collective(mesh):
    sharded = place(mesh, layer((24, 16), (16,)), {"kernel": P("x", None), "bias": P()})
    tx = optax.chain(GC, optax.rmsprop(0.1))
    state = tx.init(sharded)

    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step).lower(sharded, state, sharded).compile()
    assert collectives(compiled) == [("all-reduce", "f32", 16)]


def test_shard_map_over_outputs_equals_the_whole(mesh):
    grads = layer((24, 16), (16,))
    specs = {"kernel": P(None, "x"), "bias": P("x")}

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=(specs,), out_specs=specs)
    def step(grads):
        return GC.update(grads, optax.EmptyState())[0]

    sharded = place(mesh, grads, specs)
    assert collectives(step.lower(sharded).compile()) == []
    expected, _ = GC.update(grads, optax.EmptyState())
    np.testing.assert_allclose(step(sharded)["kernel"], expected["kernel"], atol=1e-6)


def test_shard_map_over_the_batch_equals_the_whole(mesh):
    params = {"kernel": jnp.ones((6, 4)) / 7, "bias": jnp.zeros(4)}
    batch = jnp.asarray(np.random.default_rng(1).normal(1, 1, (32, 6)), jnp.float32)
    tx = optax.chain(GC, optax.sgd(0.1, momentum=0.9))

    def loss(params, batch):
        return jnp.mean(jnp.tanh(batch @ params["kernel"] + params["bias"][None]) ** 2)

    def step(params, batch, loss):
        return tx.update(jax.grad(loss)(params, batch), tx.init(params))[0]

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=(P(), P("x")), out_specs=P())
    def sharded_step(params, batch):
        return step(params, batch, lambda *args: jax.lax.pmean(loss(*args), "x"))

    expected = step(params, batch, loss)
    got = sharded_step(params, place(mesh, batch, P("x")))
    np.testing.assert_allclose(got["kernel"], expected["kernel"], atol=1e-6)


def test_pmap_centralizes_each_replica_alone():
    grads = layer((8, 24, 16), (8, 16))
    each = jax.vmap(lambda grads: GC.update(grads, optax.EmptyState())[0])(grads)
    got = jax.pmap(lambda grads: GC.update(grads, optax.EmptyState())[0])(grads)
    np.testing.assert_allclose(got["kernel"], each["kernel"], atol=1e-6)


def test_the_removed_energy_of_a_sharded_kernel_is_that_of_the_whole(mesh):
    plain = layer((24, 16), (16,))
    sharded = place(mesh, plain, {"kernel": P("x", None), "bias": P()})
    expected = removed_energy(plain)["kernel"]
    got = jax.jit(removed_energy)(sharded)["kernel"]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_sharpness_of_a_sharded_kernel_is_that_of_the_whole(mesh):
    plain = layer((24, 16), (16,))
    sharded = place(mesh, plain, {"kernel": P(None, "x"), "bias": P("x")})
    x = jnp.asarray(np.random.default_rng(1).normal(1, 1, (32, 24)), jnp.float32)
    traced = []

    def loss(params, x):
        traced.append(1)
        outputs = x @ params["kernel"] / 24
        return jnp.mean(jnp.tanh(outputs + params["bias"][None]) ** 2)

    got = sharpness(loss, sharded, place(mesh, x, P()))
    assert len(traced) == 2
    whole = sharpness(loss, plain, x)
    assert got.products == whole.products
    assert got.plain == pytest.approx(whole.plain, rel=1e-3)
    assert got.centralized == pytest.approx(whole.centralized, rel=1e-3)
