"""How much of each kernel's gradient centralizing removes, by what feeds the kernel.

    python -m benchmarks.removed            # 2 to 3 minutes on 2 cores, no network
    python -m benchmarks.removed --write    # and keeps what it finds

Small networks at their start and after a short training without GC, one seed: decoders
on the text of this repository's licence, convolutional networks on the drawn horses and
humans. A share is the mean over ten batches. With `--write` the tables go into
docs/removed.json, with their picture beside it.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from rich.console import Console
from rich.table import Table

from benchmarks import commands
from optax_gc import describe, removed_energy
from train.data.drawing import scene
from train.study import theme

OPTIMIZER = optax.adam(1e-3)
ROOT = pathlib.Path(__file__).parents[1]
RECORD = ROOT / "docs" / "removed.json"
BATCHES = 10  # that a share is the mean of
SMALLEST = 1e-6  # a share below this is shown as 0
HEADS, WIDTH, BLOCKS, LENGTH = 4, 64, 2, 64
IMAGES, SHRINK = 256, 4  # of 300 pixels to 75
ORDER = (
    "LayerNorm",
    "RMSNorm",
    "attention",
    "ReLU between BatchNorms",
    "GELU",
    "ReLU",
    "images, standardized",
    "images",
)


class Decoder(nn.Module):
    """A transformer that reads bytes, with its norms before the layers."""

    norm: type[nn.Module]

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(128, WIDTH)(tokens) + nn.Embed(LENGTH, WIDTH)(jnp.arange(LENGTH))
        mask = nn.make_causal_mask(tokens)
        for i in range(BLOCKS):
            attention = nn.MultiHeadDotProductAttention(HEADS, name=f"attention_{i}")
            x = x + attention(self.norm()(x), mask=mask)
            hidden = nn.Dense(4 * WIDTH, name=f"mlp_in_{i}")(self.norm()(x))
            x = x + nn.Dense(WIDTH, name=f"mlp_out_{i}")(nn.gelu(hidden))
        return nn.Dense(128, name="logits")(self.norm()(x))


class ConvNet(nn.Module):
    """Three convolutions of stride 2 and a hidden layer, for two classes."""

    activation: Callable[[jax.Array], jax.Array]
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate((16, 32, 64)):
            x = nn.Conv(features, (3, 3), 2, name=f"conv_{i}")(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=False)(x)
            x = self.activation(x)
        x = nn.Dense(64, name="dense")(x.reshape(len(x), -1))
        return nn.Dense(2, name="head")(self.activation(x))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and its training.

    Attributes:
      model: Makes logits of inputs.
      batch: Returns the inputs and labels of a step.
      steps: How long it trains.
      behind: For the beginning of a kernel's name, what feeds that kernel.
    """

    model: nn.Module
    batch: Callable[[int], tuple[np.ndarray, np.ndarray]]
    steps: int
    behind: dict[str, str]


def text_batch(text: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns 32 pieces of a text of bytes, and each byte's successor."""
    rng = np.random.default_rng(step)
    starts = rng.integers(0, len(text) - LENGTH, (32, 1))
    pieces = text[starts + np.arange(LENGTH + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def image_batch(
    images: np.ndarray, labels: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns 32 images and their labels."""
    chosen = np.random.default_rng(step).integers(0, len(images), 32)
    return images[chosen], labels[chosen]


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns drawn images `(count, 75, 75, 3)` in [0, 1] and their labels."""
    first_human = scene.SPLITS["train"][0]
    indices = [i // 2 + i % 2 * first_human for i in range(count)]
    pictures, labels = zip(*(scene.draw("train", i) for i in indices), strict=True)
    side = scene.SIZE // SHRINK
    blocks = np.stack(pictures).reshape(count, side, SHRINK, side, SHRINK, 3)
    return blocks.mean((2, 4), dtype=np.float32) / 255, np.array(labels)


def decoder(norm: type[nn.Module], steps: int) -> Case:
    text = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8).astype(np.int32)
    name = norm.__name__
    behind = {"attention": name, "mlp_in": name, "mlp_out": "GELU", "logits": name}
    return Case(Decoder(norm), functools.partial(text_batch, text), steps, behind)


def conv_net(
    images: np.ndarray,
    labels: np.ndarray,
    steps: int,
    fed: str,
    activation: str = "ReLU",
    batch_norm: bool = False,
) -> Case:
    model = ConvNet(getattr(nn, activation.lower()), batch_norm)
    between = "ReLU between BatchNorms" if batch_norm else activation
    behind = {"conv_0": fed, "conv": between, "dense": activation, "head": activation}
    batch = functools.partial(image_batch, images, labels)
    return Case(model, batch, steps, behind)


def cases(
    images: np.ndarray, labels: np.ndarray, text_steps: int, image_steps: int
) -> dict[str, Case]:
    """Returns all networks by name; images are `(N, height, width, 3)` in [0, 1]."""
    scaled = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    raw = functools.partial(conv_net, images, labels, image_steps, "images")
    standardized = functools.partial(
        conv_net, scaled, labels, image_steps, "images, standardized"
    )
    return {
        "decoder, LayerNorm": decoder(nn.LayerNorm, text_steps),
        "decoder, RMSNorm": decoder(nn.RMSNorm, text_steps),
        "CNN, ReLU": raw(),
        "CNN, GELU": raw("GELU"),
        "CNN, ReLU, standardized": standardized(),
        "CNN, BatchNorm + ReLU, standardized": standardized("ReLU", True),
    }


def compiled(model: nn.Module) -> tuple[Callable, Callable]:
    """Returns a step of training, and the shares of a batch's gradient by leaf."""

    def loss(params, inputs, labels):
        logits, _ = model.apply({"params": params}, inputs, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    def step(params, state, inputs, labels):
        value, grads = jax.value_and_grad(loss)(params, inputs, labels)
        updates, state = OPTIMIZER.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    def shares(params, inputs, labels):
        return removed_energy(jax.grad(loss)(params, inputs, labels))

    return jax.jit(step), jax.jit(shares)


def measure(name: str, case: Case) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Trains a network; returns its training's summary and a row for each kernel."""

    def mean_shares(params):
        fresh = range(case.steps, case.steps + BATCHES)
        trees = [jax.tree.leaves(shares(params, *case.batch(i))) for i in fresh]
        return np.mean(trees, axis=0)

    step, shares = compiled(case.model)
    params = jax.jit(case.model.init)(jax.random.key(0), case.batch(0)[0])["params"]
    start, state = mean_shares(params), OPTIMIZER.init(params)
    for i in range(case.steps):
        params, state, loss = step(params, state, *case.batch(i))
    end = mean_shares(params)
    summary = {
        "network": name,
        "steps": case.steps,
        "loss": round(float(loss), 3),
    }
    return summary, rows(name, case, params, start, end)


def rows(
    name: str, case: Case, params: Any, start: np.ndarray, end: np.ndarray
) -> list[dict[str, Any]]:
    """Returns a row for each leaf that is centralized; the shares are by leaf."""
    return [
        {
            "network": name,
            "kernel": leaf.path.removesuffix("/kernel"),
            "behind": fed_by(leaf.path, case.behind),
            "fan_in": leaf.fan_in,
            "start": float(f"{at_start:.3g}"),
            "end": float(f"{at_end:.3g}"),
        }
        for leaf, at_start, at_end in zip(
            describe(params).rows, start, end, strict=True
        )
        if leaf.axes is not None
    ]


def fed_by(path: str, behind: dict[str, str]) -> str:
    """Returns what feeds a kernel; attention's output layer is fed by attention."""
    if path.endswith("/out/kernel"):
        return "attention"
    return next(what for start, what in behind.items() if path.startswith(start))


def percent(share: float) -> str:
    """Returns a share below 99.5 % in percent, without the sign, as a digit or two."""
    if share < SMALLEST:
        return "0"
    return f"{100 * share:.{1 if share < 0.001 else 2}g}"


def span(shares: list[float]) -> str:
    """Returns the least and the largest share in percent, as one where they agree."""
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def by_input(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the kernels' rows by what feeds them, least removed first."""
    return {
        what: [row for row in record["kernels"] if row["behind"] == what]
        for what in ORDER
    }


def markdown(record: dict[str, Any]) -> str:
    """Returns the table of shares in percent by what feeds a kernel."""
    lines = ["| after | kernels | chance, % | at the start, % | trained, % |"]
    lines.append("|---|---|---|---|---|")
    for what, kernels in by_input(record).items():
        spans = (
            span([1 / row["fan_in"] for row in kernels]),
            *(span([row[key] for row in kernels]) for key in ("start", "end")),
        )
        lines.append(f"| {' | '.join((what, str(len(kernels)), *spans))} |")
    return "\n".join(lines)


def show(record: dict[str, Any]) -> None:
    """Prints the shares of every kernel, a table for each network."""
    for training in record["trainings"]:
        name, steps, loss = (training[key] for key in ("network", "steps", "loss"))
        title = f"{name}: loss {loss} after {steps} steps"
        table = Table("kernel", "after", title=title, title_justify="left", box=None)
        for heading in ("fan-in", "chance, %", "at the start, %", "trained, %"):
            table.add_column(heading, justify="right")
        for row in record["kernels"]:
            if row["network"] == name:
                shares = map(percent, (1 / row["fan_in"], row["start"], row["end"]))
                names = row["kernel"], row["behind"], str(row["fan_in"])
                table.add_row(*names, *shares)
        Console(width=88).print(table, "")


def plot(record: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the shares by what feeds a kernel, for light pages and for dark ones."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for look in theme.THEMES:
        with mpl.rc_context(theme.settings(look)):
            figure = Figure(figsize=(6.8, 4.8), layout="constrained")
            draw_shares(figure.add_subplot(), by_input(record), look)
            title = "GC removes nearly nothing after a LayerNorm, most on images"
            figure.suptitle(title, weight="bold")
            file = path if look == "light" else path.with_stem(f"{path.stem}-{look}")
            theme.save(figure, look, file)


def draw_shares(panel: Any, groups: dict[str, list[dict[str, Any]]], look: str) -> None:
    """Draws a line for each group: its kernels at the start, trained, and by chance.

    Kernels stand at different heights, so that those of one share are all seen.
    """
    ink, orange = theme.INK[look], theme.COLORS[look]["update"]
    for y, kernels in enumerate(groups.values()):
        start, end = ([100 * row[key] for row in kernels] for key in ("start", "end"))
        chance = np.mean([100 / row["fan_in"] for row in kernels])
        heights = y + np.linspace(-0.25, 0.25, len(kernels))
        panel.hlines(y, 0, max(start + end), theme.FAINT[look], lw=0.8)
        marks = [
            panel.scatter(start, heights, 30, "none", edgecolors=orange),
            panel.scatter(end, heights, 30, orange, lw=0),
            panel.scatter([chance], [y], 300, ink, marker="|", lw=2),
        ]
        panel.text(104, y, f"{span([row['end'] for row in kernels])} %", va="center")
    names = "a kernel at the start", "trained, range at the right", "chance: 1 / fan-in"
    panel.legend(marks, names, loc="upper right", frameon=False)
    panel.set_yticks(range(len(groups)), groups)
    panel.set(xlim=(-2, 102), ylim=(len(groups) - 0.4, -0.6))
    panel.set_xlabel("share of the gradient's squared norm that GC removes, %")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(left=False)
    panel.patch.set_visible(False)  # the ground is the figure's


def main() -> None:
    """Measures and prints, and if asked writes the record and the picture."""
    options = commands.parse("removed")
    images, labels = draw(IMAGES)
    measured = [
        measure(*case)
        for case in cases(images, labels, text_steps=570, image_steps=60).items()
    ]
    record = {
        "jax": jax.__version__,
        "trainings": [summary for summary, _ in measured],
        "kernels": [row for _, rows in measured for row in rows],
    }
    show(record)
    if options.write:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        plot(record, RECORD.with_suffix(".png"))


if __name__ == "__main__":
    main()
