"""The problems of the study: a network, its data, its loss and what it is judged by."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from train.study.limits import data, networks
from train.study.limits.data import Examples, Split

WIDTH = 128  # of the coordinate networks
PROBE = 2048  # examples at most that the sharpness is measured on


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A network to train.

    Attributes:
      name: of its records.
      title: for people.
      model: a Flax module.
      split: its data.
      loss: from params and examples to a scalar.
      judge: from params and the held-out examples to what a user looks at.
      unit: of that: "PSNR, dB", "loss", ...
      batch_size: examples in a step; all of them if there are no more.
      steps: of the smaller budget.
      first_rates: of each optimizer that trains it, where the search begins.
    """

    name: str
    title: str
    model: nn.Module
    split: Split
    loss: Callable[[Any, Examples], Array]
    judge: Callable[[Any, Examples], Array]
    unit: str
    batch_size: int
    steps: int
    first_rates: dict[str, float]

    def init(self, key: Array) -> Any:
        """Returns fresh params."""
        return self.model.init(key, self.split.train.x[:2])["params"]

    @property
    def probe(self) -> Examples:
        """The training examples that the sharpness is measured on."""
        return Examples(*(part[:PROBE] for part in self.split.train))


def applied(model: nn.Module, params: Any, x: Any) -> Array:
    return model.apply({"params": params}, x)


def squared_error(model: nn.Module, params: Any, examples: Examples) -> Array:
    """Returns the mean squared error."""
    return jnp.mean(jnp.square(applied(model, params, examples.x) - examples.y))


def psnr(model: nn.Module, params: Any, examples: Examples) -> Array:
    """Returns the peak signal-to-noise ratio in dB, of values in [0, 1]."""
    return -10 * jnp.log10(squared_error(model, params, examples))


def cross_entropy(model: nn.Module, params: Any, examples: Examples) -> Array:
    """Returns the mean cross-entropy."""
    logits = applied(model, params, examples.x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, examples.y).mean()


def poisson(model: nn.Module, params: Any, examples: Examples) -> Array:
    """Returns the mean squared residual of a Poisson equation on the unit square.

    `-u_xx - u_yy = y`, with u = 0 at the border because the network is multiplied by a
    function that is 0 there.
    """

    def laplacian(x: Array) -> Array:
        return jnp.trace(jax.hessian(functools.partial(solution, model, params))(x))

    residual = jax.vmap(laplacian)(examples.x) + examples.y
    return jnp.mean(jnp.square(residual))


def solution(model: nn.Module, params: Any, x: Array) -> Array:
    """Returns the network's u at a place `(2,)`, 0 at the border."""
    border = 16 * jnp.prod(x * (1 - x))
    return border * applied(model, params, 2 * x - 1)[0]


def poisson_error(model: nn.Module, params: Any, examples: Examples) -> Array:
    """Returns the relative L2 error of u, of which the examples are the exact one."""
    found = jax.vmap(functools.partial(solution, model, params))(examples.x)
    return jnp.linalg.norm(found - examples.y) / jnp.linalg.norm(examples.y)


def poisson_split() -> Split:
    """Returns places with the right-hand side, and others with the exact solution."""

    def exact(x: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * x[:, 0]) * np.sin(3 * np.pi * x[:, 1])

    places, others = data.square(4096, 0), data.square(4096, 1)
    return Split(
        Examples(places, 13 * np.pi**2 * exact(places)), Examples(others, exact(others))
    )


def image(
    name: str, title: str, picture: str, model: nn.Module, rate: float
) -> Problem:
    """Returns the problem of a coordinate network that fits a picture."""
    return Problem(
        name, title, model, data.pixels(picture),
        functools.partial(squared_error, model), functools.partial(psnr, model),
        "PSNR, dB", 512, 1000, {"adam": rate},
    )  # fmt: skip


def classifier(
    name: str, title: str, model: nn.Module, split: Split, steps: int
) -> Problem:
    """Returns the problem of a network that tells pieces of clothing apart."""
    loss = functools.partial(cross_entropy, model)
    return Problem(
        name, title, model, split, loss, loss, "loss", 128, steps,
        {"adam": 2**-9, "sgd": 2**-5},
    )  # fmt: skip


def problems(data_dir: pathlib.Path) -> list[Problem]:
    """Returns all problems, in the order in which they are run.

    Args:
      data_dir: the folder of TensorFlow Datasets with Fashion-MNIST.
    """
    fashion = data.fashion(data_dir)
    flat = Split(
        *(Examples(part.x.reshape(len(part.x), -1), part.y) for part in fashion)
    )
    same = Split(*(Examples(part.x, part.x) for part in flat))
    relu = {
        name: networks.Perceptron(
            (WIDTH,) * 4 + (data.picture(name).shape[-1],), encode=networks.encoded
        )
        for name in data.PICTURES
    }
    normed = relu["hopper"].clone(norm=nn.LayerNorm)
    coder = networks.Perceptron((256, 64, 16, 64, 256, 784))
    dense = networks.Perceptron((128, 128, 128, 10))
    conv = networks.Convolutions((16, 32, 64), 10)
    pinn = networks.Perceptron((64, 64, 64, 1), activation=nn.tanh)
    return [
        image("hopper", "coordinates, photograph", "hopper", relu["hopper"], 2**-9),
        classifier("mlp", "MLP, Fashion-MNIST", dense, flat, 500),
        image("brain", "coordinates, MRI", "brain", relu["brain"], 2**-9),
        image("hills", "coordinates, elevation", "hills", relu["hills"], 2**-9),
        image("layernorm", "coordinates, LayerNorm", "hopper", normed, 2**-8),
        image("siren", "SIREN, photograph", "hopper",
              networks.Siren((WIDTH,) * 4 + (3,)), 2**-12),
        Problem(
            "autoencoder", "autoencoder, Fashion-MNIST", coder, same,
            functools.partial(squared_error, coder),
            functools.partial(squared_error, coder), "loss", 128, 500,
            {"adam": 2**-9},
        ),
        classifier("cnn", "CNN, Fashion-MNIST", conv, fashion, 300),
        classifier("cnn-batchnorm", "CNN, BatchNorm",
                   conv.clone(norm=networks.BatchNorm), fashion, 300),
        classifier("cnn-layernorm", "CNN, LayerNorm",
                   conv.clone(norm=nn.LayerNorm), fashion, 300),
        Problem(
            "pinn", "physics-informed, tanh", pinn, poisson_split(),
            functools.partial(poisson, pinn), functools.partial(poisson_error, pinn),
            "relative error", 256, 1000, {"adam": 2**-9},
        ),
    ]  # fmt: skip
