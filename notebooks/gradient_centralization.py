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
# mean ([Yong et al., 2020](https://arxiv.org/abs/2004.01461)). This notebook shows which
# layers of a network will notice, why the axes matter, and what it does to training.
#
# ADDRESS_BADGE

# %% tags=["install"]
# ADDRESS_INSTALL

# %% [markdown]
# ## Settings
#
# About four minutes on a CPU. On a GPU or TPU the last section trains the published
# experiment, horses and humans, for its ten epochs.

# %% tags=["parameters"]
import pathlib
import tempfile

from train.config import default_data_dir, prepare_jax

prepare_jax()  # before JAX is imported: caches what it compiles, uses all cores

import jax

SEEDS = 3
STEPS = 1000  # of the networks that learn a photograph
TEXT_BYTES = 500_000
HORSES_EPOCHS = 0 if jax.default_backend() == "cpu" else 10
DATASET, DATA_DIR = "auto", default_data_dir()
RUNS = pathlib.Path(tempfile.mkdtemp())

# %%
import sys
import sysconfig

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import rich.console
from IPython.display import Image, Markdown, display

from optax_gc import centralize_gradients, describe, sharpness, traced_fan_in
from train import data, horses, shakespeare
from train.data.drawing import scene
from train.engine import fit
from train.engine.axes import fan_in_axes
from train.faults import Stop
from train.record import overall, pictures, statistics
from train.study.limits import data as pictures_of
from train.study.limits import networks, problems
from train.study.limits import training as side_by_side
from train.tasks.cnn import CNN
from train.tasks.horses import Horses
from train.tasks.shakespeare import Shakespeare

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
ROOT = pathlib.Path(fit.__file__).parents[2]

# %% [markdown]
# ## Which layers will notice
#
# Centralizing a kernel's gradient is the same as subtracting from each of the kernel's
# inputs its mean over the features, in the backward pass alone. So GC acts where inputs
# have a non-zero mean. A small transformer first, of the kind that normalizes before each layer: it
# reads the source of Python's standard library, byte by byte. A tenth of the files is
# kept out of training.

# %%
files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))


def source(paths):
    """Returns what the files hold, one byte an entry."""
    return np.frombuffer(b"".join(path.read_bytes() for path in paths), np.uint8)


held_out = source(files[::10])[: TEXT_BYTES // 10]
training = source([path for path in files if path not in files[::10]])[:TEXT_BYTES]
text = data.Text("standard library", training, held_out, held_out)
task = Shakespeare(text, test=False)
print(f"{len(training):,} bytes to train on, {len(held_out):,} to evaluate on.")

# %% [markdown]
# `traced_fan_in` traces the loss and finds for each parameter along which of its axes it is
# contracted with data: its fan-in. `describe` shows what was found and, with gradients, the
# share of each one's squared norm that GC removes, next to the share it would remove from noise.

# %%
variables = task.init(jax.random.key(0))
axes = fan_in_axes(task, variables)  # traced_fan_in of the task's loss


@jax.jit
def text_loss(params, passages):
    return task.test_scores({"params": params}, (passages,)).loss.mean()


grads = jax.grad(text_loss)(variables["params"], task.splits["train"][0][:16])
print(describe(variables["params"], axes, updates=grads))

# %% [markdown]
# There is nothing to remove after a LayerNorm, which has already removed the mean of its
# output's features. It is different in a convolutional network on images, without
# normalization: the CNN of the Keras example, on sixteen drawn horses and humans.

# %% mystnb={"image": {"alt": "Six drawn pictures: three horses and three humans"}}
horses_drawn, humans_drawn = 500, 527
drawn = [
    scene.draw("train", i) for i in (*range(8), *range(horses_drawn, horses_drawn + 8))
]
images = jnp.stack([picture for picture, _ in drawn]) / 255.0
labels = jnp.array([label for _, label in drawn])
figure, panels = plt.subplots(1, 6, figsize=(12, 2.2), layout="constrained")
for panel, i in zip(panels, (0, 8, 1, 9, 2, 10), strict=True):
    panel.imshow(images[i])
    panel.set_title(scene.NAMES[drawn[i][1]], fontsize=10)
    panel.axis("off")

# %%
cnn = CNN(2)
params = jax.jit(cnn.init)(jax.random.key(0), images)["params"]


@jax.jit
def mean_loss(params, images, labels):
    logits = cnn.apply({"params": params}, images)
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


axes = traced_fan_in(mean_loss, params, images, labels)
grads = jax.grad(mean_loss)(params, images, labels)
print(describe(params, axes, updates=grads))

# %% [markdown]
# What that is for one output unit of the first convolution, whose fan-in is a patch of
# 3 x 3 pixels in three colors:

# %% mystnb={"image": {"alt": "Bars of the gradient of one output unit before and after centralizing: after it, their mean is 0"}}
tx = centralize_gradients(axes)
centralized, _ = tx.update(grads, tx.init(params))
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
# ## The plane that the weights stay on
#
# Under SGD a centralized gradient cannot move the mean of a unit's weights: they stay on
# the plane through their start on which that mean is constant. Three weights of a linear
# regression, fitted by 60 steps of SGD with and without GC; every dot is a measured
# step.

# %% mystnb={"image": {"alt": "The weights of a linear regression: with GC they stay on the plane through their start, without it they leave it"}}
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
# With an adaptive optimizer after it, as RMSprop is, each weight's update is scaled by
# its own factor, and the weights do leave the plane. GC on the *update* keeps them there.
#
# ## Why the axes matter
#
# `optax.centralize()` averages over all axes but the first, which is right for PyTorch's
# layout. In Flax a kernel is `(in, out)`: there a head with one output loses its whole
# gradient, and never trains.

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

    @jax.jit
    def one_step(params, opt_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    for step in range(steps + 1):
        params, opt_state, value = one_step(params, opt_state)
        if step % 50 == 0:
            losses.append(float(value))
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
# mean of the weights at its start, and the right classifier has a different mean.
# GC is a constraint, and whether that helps is a question for an experiment.
#
# ## With and without GC
#
# The transformer above, trained by AdamW with warm-up and a cosine to 1e-3, for 244 steps. Both arms of a seed start from the same parameters and see the data in the same order.


# %%
def train(task, config, arm, console):
    """Trains one run and returns its record."""
    folder = RUNS / task.about.name.replace("/", "-") / f"{arm}-seed{config.seed}"
    folder.mkdir(parents=True)
    progress = overall.Overall(console, config.epochs, [folder.name])
    fit.fit(config, task, overall.Member(folder, progress), Stop())
    return statistics.read_run(folder)


quiet = rich.console.Console(quiet=True)
runs = [
    train(
        task,
        shakespeare.Config(
            gc=gc, seed=seed, learning_rate=1e-3, epochs=1, evaluations=12, test=False
        ),
        "gradient" if gc else "none",
        quiet,
    )
    for seed in range(SEEDS)
    for gc in (False, True)
]

# %% mystnb={"image": {"alt": "Validation loss of three seeds with and without GC, and the share of each gradient that GC removes"}}
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
for run in runs:
    steps = [line["step"] for line in run.evaluations]
    losses = [line["validation_loss"] for line in run.evaluations]
    label = run.arm if run.seed == 0 else None
    left.plot(steps, losses, color=pictures.color(run.arm), lw=1.2, label=label)
left.set(xlabel="step", ylabel="nats a byte", title=f"Held-out loss of {SEEDS} seeds")
left.legend(frameon=False)

folder = RUNS / "standard library"
with np.load(folder / "gradient-seed0" / "removed.npz") as file:
    for kernel, shares in zip(file["paths"], file["shares"].T, strict=True):
        after_norm = not any(part in kernel for part in ("out", "embed", "place"))
        right.semilogy(100 * shares, color="C0" if after_norm else "C3", lw=0.8)
right.plot([], color="C0", label="after a LayerNorm")
right.plot([], color="C3", label="after attention or GELU")
right.axhline(100 / 96, color="black", lw=0.8, ls="--", label="of noise, fan-in of 96")
right.set(xlabel="step", ylabel="%", title="Share of each gradient that GC removes")
right.legend(frameon=False)
figure.show()

# %%
Markdown(statistics.markdown_table(*statistics.differences_table(runs, "none")))

# %% [markdown]
# An interval that contains 0 does not show a difference. Three seeds at one rate show how
# training goes; they do not settle whether GC helps.
#
# ## The study
#
# That takes more: on real data, each arm at the rate that is best for it, eight to sixteen fresh
# seeds, a test split that is read once. It was planned before its runs; `results/README.md` has
# all of it.

# %% mystnb={"image": {"alt": "The study: difference in loss with and without GC for each comparison, in units of its margin"}}
Image(ROOT / "results" / "study.png", width=460)

# %% [markdown]
# ## Where training is the limit
#
# The networks so far normalize, or are short of data. Others do neither, and what counts is how low their
# training loss gets: a network that learns a single image, for example, from coordinates to colors. Here
# is such a network, with ReLU and without normalization. It learns half of the pixels of a
# photograph by Adam in 1,000 steps, without GC, with GC on the gradient, and with GC on Adam's update, each
# at the rate that the second study found best for it.

# %%
network = networks.Perceptron((128, 128, 128, 128, 3), encode=networks.encoded)
photograph = problems.image("hopper", "photograph", "hopper", network, 2**-6)
BEST_RATES = {"none": 2**-6, "gradient": 2**-5, "update": 2**-4}
fits = {
    arm: side_by_side.train(
        photograph, "adam", arm, [rate] * SEEDS, range(SEEDS), STEPS
    )
    for arm, rate in BEST_RATES.items()
}
print("arm       training PSNR  held-out PSNR  (dB, mean of the seeds)")
for arm, fitted in fits.items():
    trained = -10 * np.log10(side_by_side.final(fitted.curve)).mean()
    print(f"{arm:9} {trained:13.1f}  {fitted.judged.mean():13.1f}")

# %% mystnb={"image": {"alt": "A photograph, and what networks learned of it without GC and with it"}}
side = len(pictures_of.picture("hopper"))
figure, panels = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
panels[0].imshow(pictures_of.picture("hopper"))
panels[0].set_title("photograph", fontsize=10)
for panel, (arm, fitted) in zip(panels[1:], fits.items(), strict=True):
    first = jax.tree.map(lambda x: x[0], fitted.params)
    colors = network.apply({"params": first}, pictures_of.coordinates(side))
    panel.imshow(np.clip(colors, 0, 1).reshape(side, side, 3))
    panel.set_title(f"{arm}, held out {fitted.judged[0]:.1f} dB", fontsize=10)
for panel in panels:
    panel.axis("off")

# %% [markdown]
# Can that be told beforehand? `sharpness` measures the largest curvature of the loss, and what is left of
# it with GC. Here after 5 % of the steps of training without GC, for this network and for one that has sines instead
# of ReLU (SIREN), whose layers see inputs with hardly any mean:

# %%
siren = problems.image(
    "siren", "SIREN", "hopper", networks.Siren((128, 128, 128, 128, 3)), 2**-11
)
for problem, rate in ((photograph, 2**-6), (siren, 2**-11)):
    few = max(1, STEPS // 20)
    early = side_by_side.train(problem, "adam", "none", [rate], [0], STEPS, stop=few)
    place = jax.tree.map(lambda x: x[0], early.params)
    fan_in = traced_fan_in(problem.loss, place, problem.probe)
    found = sharpness(problem.loss, place, problem.probe, axes=fan_in)
    print(f"{problem.title:10}  {found}")

# %% [markdown]
# The second study asks this of fifteen networks and optimizers: `results/limits/README.md` has all of it.

# %% mystnb={"image": {"alt": "Two fits of a photograph, and for each network the steps that GC needs over the ratio of sharpness"}}
Image(ROOT / "results" / "limits" / "gain.png", width=460)

# %% [markdown]
# ## Horses and humans, on an accelerator
#
# The experiment that this project comes from: RMSprop at 1e-4, ten epochs, both arms. On a
# CPU that takes five minutes, so it is left to `python -m train.horses --gc`. With one
# seed it shows how training goes, not whether GC helps.

# %%
if HORSES_EPOCHS:
    dataset = data.load(DATASET, DATA_DIR)
    print(f"{len(dataset.train)} training images of {dataset.name}: {dataset.reason}.")
    plain = rich.console.Console(file=sys.stdout, width=120, force_jupyter=False)
    both = [
        train(
            Horses(dataset),
            horses.Config(
                gc=gc, epochs=HORSES_EPOCHS, batch_size=min(128, len(dataset.train))
            ),
            "gradient" if gc else "none",
            plain,
        )
        for gc in (False, True)
    ]
    pictures.plot_curves(both, RUNS / "curves.png")
    display(Image(RUNS / "curves.png", width=760))
else:
    print("Not run: JAX sees no accelerator here.")

# %% [markdown]
# ## In your own optimizer
#
# Put GC before the optimizer. Trace your own loss, look at
# `describe(params, axes)`, and override by pattern whatever should be read differently.

# %%
tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    centralize_gradients(axes),
    optax.adamw(1e-3),
)
opt_state = tx.init(params)
updates, opt_state = jax.jit(tx.update)(grads, opt_state, params)
print(f"{optax.tree.norm(updates):.4f} is the norm of the first update.")
