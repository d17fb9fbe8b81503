# python docs/optax_centralize.py
import jax
import optax
from flax import linen as nn

from optax_gc import describe, traced_fan_in


def centralize(axes=None):
    def subtract_mean(g, over):
        return g if over is None else g - g.mean(over, keepdims=True)

    def update_fn(updates, state, params=None):
        del params
        if axes is None:  # the current behaviour
            over = jax.tree.map(lambda g: tuple(range(1, g.ndim)) or None, updates)
        else:
            over = axes(updates) if callable(axes) else axes
        return jax.tree.map(subtract_mean, updates, over), state

    return optax.GradientTransformation(optax.init_empty_state, update_fn)


class Images(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3), name="conv")(x))
        return nn.Dense(10, name="softmax")(x.mean((1, 2)))


class Text(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(100, 16, name="embed")(x)
        x = nn.relu(nn.DenseGeneral((4, 4), name="split")(x))  # as in attention
        x = nn.relu(nn.DenseGeneral(16, (-2, -1), name="join")(x))
        return nn.Dense(1, name="sigmoid")(x.mean(1))


def rows(model, x, loss, y):
    """Prints what is removed from each parameter's gradient, now and with axes."""

    def mean_loss(params, x):
        return loss(model.apply({"params": params}, x), y).mean()

    params = model.init(jax.random.key(0), x)["params"]
    grads = jax.grad(mean_loss)(params, x)
    report = describe(params, traced_fan_in(mean_loss, params, x)).rows
    axes = jax.tree.unflatten(jax.tree.structure(grads), [row.axes for row in report])
    taken = []
    for tx in (optax.centralize(), centralize(axes)):
        updates, _ = tx.update(grads, tx.init(params))
        taken.append(jax.tree.leaves(jax.tree.map(share, grads, updates)))
    for row, now, then in zip(report, *taken, strict=True):
        if len(row.shape) > 1:
            over = tuple(range(1, len(row.shape)))
            print(f"| `{row.path}` | `{row.shape}` | `{over}` | {now:.1%} "
                  f"| {row.axes and f'`{row.axes}`'} | {then:.1%} |")  # fmt: skip


def share(before, after):
    return float(((before - after) ** 2).sum() / (before**2).sum())


def binary(logits, labels):
    return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)


images, tokens = jax.random.split(jax.random.key(1))
x, y = jax.random.uniform(images, (64, 8, 8, 3)), jax.numpy.arange(64)
rows(Images(), x, optax.softmax_cross_entropy_with_integer_labels, y % 10)
rows(Text(), jax.random.randint(tokens, (64, 12), 0, 100), binary, y % 2)
