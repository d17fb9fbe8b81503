# python docs/frameworks/train_haiku.py
import haiku as hk
import jax
import numpy as np
import optax

from optax_gc import centralize_gradients, describe, traced_fan_in

rng = np.random.default_rng(0)  # stripes that lie (0) or stand (1), in noise
y = np.arange(64) % 2
waves = np.sin(np.arange(8) * 1.5 + rng.uniform(0, 6, (64, 1, 1))).repeat(8, 1)
x = np.where(y[:, None, None], waves, waves.transpose(0, 2, 1))
x = np.float32(x + rng.normal(0, 0.5, x.shape))[..., None]  # (64, 8, 8, 1)


@hk.transform
def network(x):
    x = jax.nn.relu(hk.Conv2D(8, 3)(x))
    return hk.Linear(2)(x.mean((1, 2)))


def loss(params, x, y):
    logits = network.apply(params, None, x)  # no dropout, so no key
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def step(params, state):
    updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
    return optax.apply_updates(params, updates), state


start = params = network.init(jax.random.key(0), x)
axes = traced_fan_in(loss, params, x, y)
gc, sgd = centralize_gradients(axes), optax.sgd(0.3, momentum=0.9)
tx = optax.chain(optax.clip_by_global_norm(1.0), gc, sgd)
state = tx.init(params)
for _ in range(30):
    params, state = step(params, state)
print(f"loss {loss(start, x, y):.4f} -> {loss(params, x, y):.4f}")
before, after = jax.tree.leaves(start), jax.tree.leaves(params)
for row, old, new in zip(describe(start, axes).rows, before, after, strict=True):
    if row.axes:
        means = abs((new - old).mean(row.axes)).max()
        print(f"{row.path} moved {abs(new - old).max():.2f}, its means {means:.0e}")
