# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradient Centralization, with the right axes
#
# Gradient Centralization (GC) subtracts from the gradient of each weight vector its
# mean ([Yong et al., 2020](https://arxiv.org/abs/2004.01461)). This notebook shows what
# that does to a real gradient and to the weights, why the axes matter, and whether it
# helps a small convolutional network to tell horses from humans.
#
# ADDRESS_BADGE

# %% tags=["install"]
# ADDRESS_INSTALL

# %% [markdown]
# ## Settings
#
# On a CPU two epochs a run, so that the whole notebook takes a few minutes; on a GPU
# or TPU the ten of the published experiment. `"auto"` takes the official images if they
# are there or can be downloaded, and else draws its own.

# %% tags=["parameters"]
import pathlib
import tempfile

from train.config import default_data_dir, prepare_jax

prepare_jax()  # before JAX is imported: caches what it compiles, uses all cores

import jax

EPOCHS = 2 if jax.default_backend() == "cpu" else 10
BATCH_SIZE = 128
DATASET, DATA_DIR = "auto", default_data_dir()
RUNS = pathlib.Path(tempfile.mkdtemp())

# %%
import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import rich.console
from IPython.display import Image, Markdown

from optax_gc import centralize_gradients, describe, removed_energy
from train import data
from train.engine import fit
from train.engine.arms import kernels
from train.faults import Stop
from train.horses import Config
from train.record import pictures, reporter, statistics
from train.tasks.horses import Horses

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
dataset = data.load(DATASET, DATA_DIR)
task = Horses(dataset)
print(f"{len(dataset.train)} training images of {dataset.name}: {dataset.reason}.")

# %%
figure, panels = plt.subplots(1, 6, figsize=(12, 2.2), layout="constrained")
chosen = np.linspace(0, len(dataset.train) - 1, 6).astype(int)
for panel, i in zip(panels, chosen, strict=True):
    panel.imshow(dataset.train.images[i])
    panel.set_title(dataset.class_names[dataset.train.labels[i]], fontsize=10)
    panel.axis("off")

# %% [markdown]
# ## What GC does to a gradient
#
# The gradient of the network's loss on 16 of these images, at its first step. `describe`
# says which axes of which leaf are its fan-in: the weights that one output unit sums
# over.

# %%
params = task.init(jax.random.key(0))["params"]
print(describe(params))


# %%
@jax.jit
def mean_loss(params, images, labels):
    return task.test_scores({"params": params}, (images, labels)).loss.mean()


rows = np.linspace(0, len(dataset.train) - 1, 16).astype(int)
images, labels = dataset.train.images[rows], dataset.train.labels[rows]
grads = jax.grad(mean_loss)(params, images, labels)
centralized, _ = centralize_gradients().update(grads, optax.EmptyState())

before, after = (tree["Conv_0"]["kernel"] for tree in (grads, centralized))
units = before.reshape(-1, before.shape[-1])  # one column an output unit
unit = int(jnp.argmax(jnp.abs(units.mean(0)) / units.std(0)))

figure, panels = plt.subplots(
    1, 2, figsize=(11, 3.4), sharey=True, layout="constrained"
)
for panel, kernel, title in (
    (panels[0], before, "before"),
    (panels[1], after, "after centralizing"),
):
    vector = kernel.reshape(-1, kernel.shape[-1])[:, unit]
    panel.bar(np.arange(len(vector)), vector, color="C0")
    panel.axhline(vector.mean(), color="C3", label=f"mean {float(vector.mean()):+.1e}")
    panel.axhline(0, color="black", linewidth=0.6)
    panel.set_title(f"Gradient of output unit {unit} of Conv_0, {title}")
    panel.set_xlabel("weight in the fan-in")
    panel.legend(frameon=False)

# %% [markdown]
# How much of each kernel's gradient that takes away, as a share of its squared norm:

# %%
shares = kernels(removed_energy(grads), describe(grads).rows)
figure, panel = plt.subplots(figsize=(8, 2.8), layout="constrained")
names = [path.removesuffix("/kernel") for path in shares]
panel.barh(names, [100 * float(share) for share in shares.values()], color="C0")
panel.invert_yaxis()
panel.set_xlabel("% of the gradient's energy that centralizing removes")
figure.show()

# %% [markdown]
# ## The plane that the weights stay on
#
# Under SGD a centralized gradient cannot move the mean of a unit's weights: they stay on
# the plane through their start on which that mean is constant. Three weights of a linear
# regression, fitted by 60 steps of SGD with and without GC; every dot is a measured
# step.

# %%
inputs = jax.random.normal(jax.random.key(1), (64, 3)) * jnp.array([1.0, 0.7, 0.5])
targets = inputs @ jnp.array([[1.5], [-0.4], [1.0]])


def path_of(tx, steps=60):
    """Returns the weights after every step, `(steps + 1, 3)`."""
    params = {"kernel": jnp.array([[-0.6], [0.8], [0.1]])}
    opt_state, seen = tx.init(params), [params["kernel"][:, 0]]
    for _ in range(steps):
        grads = jax.grad(lambda p: jnp.mean((inputs @ p["kernel"] - targets) ** 2))(
            params
        )
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params["kernel"][:, 0])
    return np.stack(seen)


paths = {
    "SGD": path_of(optax.sgd(0.1)),
    "SGD with GC": path_of(optax.chain(centralize_gradients(), optax.sgd(0.1))),
}
figure = plt.figure(figsize=(11, 4.2), layout="constrained")
space = figure.add_subplot(1, 2, 1, projection="3d")
flat = figure.add_subplot(1, 2, 2)
total = float(paths["SGD"][0].sum())
side = np.linspace(-1, 1.8, 2)
x, y = np.meshgrid(side, side)
space.plot_surface(x, y, total - x - y, alpha=0.15, color="0.5")
for (name, weights), color in zip(paths.items(), ("C3", "C0"), strict=True):
    space.plot(*weights.T, ".-", color=color, label=name)
    drift = weights.mean(1) - weights[0].mean()
    flat.plot(drift, color=color, label=f"{name}: at most {abs(drift).max():.0e}")
space.set(xlabel="$w_1$", ylabel="$w_2$", zlabel="$w_3$", title="The weights")
space.view_init(elev=18, azim=-50)
flat.set(xlabel="step", title="Their mean, less its mean at the start")
space.legend(frameon=False)
flat.legend(frameon=False)
figure.show()

# %% [markdown]
# With an adaptive optimizer behind it, as RMSprop is, each weight's update is scaled by
# its own factor, and the weights do leave the plane. GC on the *update* keeps them there.
#
# ## Why the axes matter
#
# `optax.centralize()` averages over all axes but the first, which is right for PyTorch's
# layout. In Flax a kernel is `(in, out)`: there a head with one output has nothing left
# of its gradient, and never trains.

# %%
features = jax.random.normal(jax.random.key(2), (256, 64))
classes = (features[:, :8].sum(1) > 0).astype(jnp.float32)


def head_losses(tx, steps=200):
    """Returns the loss of a linear classifier after every 50th step."""
    params = {"kernel": jnp.zeros((64, 1))}
    opt_state, losses = tx.init(params), []

    def loss(params):
        logits = (features @ params["kernel"])[:, 0]
        return optax.sigmoid_binary_cross_entropy(logits, classes).mean()

    for step in range(steps + 1):
        value, grads = jax.value_and_grad(loss)(params)
        if step % 50 == 0:
            losses.append(float(value))
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    return losses


print("loss after step           0      50     100     150     200")
for name, gc in (
    ("no centralization", optax.identity()),
    ("optax.centralize", optax.centralize()),
    ("optax_gc", centralize_gradients()),
):
    losses = head_losses(optax.chain(gc, optax.sgd(0.5)))
    print(f"{name:18}", "".join(f"{loss:8.4f}" for loss in losses))

# %% [markdown]
# GC with the right axes trains, but here it is no faster than none at all: it holds the
# mean of the weights at its start, and the classifier that is looked for has another one.
# GC is a constraint, and whether that helps is a question for an experiment.
#
# ## Both arms, with and without GC
#
# The same initial parameters, order of the images, augmentation and dropout; RMSprop at
# 1e-4. With one seed and so few epochs this shows how training goes, not whether GC
# helps.


# %%
def run(gc):
    """Trains one arm and returns its record."""
    folder = RUNS / f"{'gradient' if gc else 'none'}-seed0"
    folder.mkdir(parents=True)
    config = Config(gc=gc, epochs=EPOCHS, batch_size=BATCH_SIZE)
    console = rich.console.Console(
        file=sys.stdout, width=88, force_jupyter=False, force_terminal=False
    )
    fit.fit(config, task, reporter.Reporter(folder, console), Stop())
    return statistics.read_run(folder)


without = run(gc=False)

# %%
with_gc = run(gc=True)

# %%
pictures.plot_curves([without, with_gc], RUNS / "curves.png")
Image(RUNS / "curves.png", width=760)

# %% [markdown]
# ## The finding
#
# So we ran the comparison that this needs: real images, held out by figure, five seeds,
# paired, with intervals that were fixed before the runs. Differences of each arm from
# `none` at the last of ten epochs, RMSprop at 1e-4:

# %%
root = pathlib.Path(fit.__file__).parents[2] / "results/first"
runs = statistics.read_runs(root / "rmsprop")
Markdown(statistics.markdown_table(*statistics.differences_table(runs, "none")))

# %% [markdown]
# An interval that holds 0 shows no difference. GC on the gradient shows none in training,
# and made both held-out metrics worse; GC on the update made the held-out loss worse. With
# SGD, at a learning rate that was unstable without GC, it helped instead. At a second rate of
# either optimizer neither was to be seen: what GC does here hangs on the learning rate.
# `results/first/README.md` has the plan, every run, and what was not tested.
#
# ## In your own optimizer
#
# GC stands before the optimizer it centralizes for. Look at `describe(params)` first, and
# override by pattern what it reads otherwise than you mean it.

# %%
tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    centralize_gradients({"Dense_1/*": None}),  # leave the last layer alone
    optax.adamw(1e-3),
)
opt_state = tx.init(params)
updates, opt_state = tx.update(grads, opt_state, params)
print(f"{optax.tree.norm(updates):.4f} is the norm of the first update.")
