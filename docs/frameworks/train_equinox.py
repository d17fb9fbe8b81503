# python docs/frameworks/train_equinox.py
import equinox as eqx
import jax
import numpy as np
import optax

from optax_gc import centralize_gradients, describe, traced_fan_in

rng = np.random.default_rng(0)  # stripes that lie (0) or stand (1), in noise
y = np.arange(64) % 2
waves = np.sin(np.arange(8) * 1.5 + rng.uniform(0, 6, (64, 1, 1))).repeat(8, 1)
x = np.where(y[:, None, None], waves, waves.transpose(0, 2, 1))
x = np.float32(x + rng.normal(0, 0.5, x.shape))[:, None]  # (64, 1, 8, 8)


def loss(model, x, y):
    logits = jax.vmap(model)(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@eqx.filter_jit
def step(model, state):
    grads = eqx.filter_grad(loss)(model, x, y)
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, state = tx.update(grads, state, params)
    return eqx.apply_updates(model, updates), state


first, last = jax.random.split(jax.random.key(0))
layers = [eqx.nn.Conv2d(1, 8, 3, key=first), eqx.nn.Lambda(jax.nn.relu)]
layers += [eqx.nn.Lambda(lambda x: x.mean((1, 2))), eqx.nn.Linear(8, 2, key=last)]
start = model = eqx.nn.Sequential(layers)
axes = traced_fan_in(loss, model, x, y)
gc, sgd = centralize_gradients(axes), optax.sgd(0.3, momentum=0.9)
tx = optax.chain(optax.add_decayed_weights(1e-4), gc, sgd)
state = tx.init(eqx.filter(model, eqx.is_inexact_array))
for _ in range(30):
    model, state = step(model, state)
print(f"loss {loss(start, x, y):.4f} -> {loss(model, x, y):.4f}")
rows = describe(start, axes).rows
for row, old, new in zip(rows, *map(jax.tree.leaves, (start, model)), strict=True):
    if row.axes:
        means = abs((new - old).mean(row.axes)).max()
        print(f"{row.path} moved {abs(new - old).max():.2f}, its means {means:.0e}")
