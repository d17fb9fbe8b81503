"""flaxmodels' networks in Flax Linen, StyleGAN2 among them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import flaxmodels
import jax
import jax.numpy as jnp
from flaxmodels.stylegan2 import discriminator, generator, ops

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import ELEMENTWISE, Axes, Model


def linear(*_: Any) -> Mapping[str, Axes]:
    return {"weight": (-2,)}


def conv(*_: Any) -> Mapping[str, Axes]:
    return {"weight": (-4, -3, -2)}  # (*window, in, out), scaled by the style


def constant(*_: Any) -> Mapping[str, Axes]:
    return {"const": ELEMENTWISE}


LAYERS = {
    **linen_layers.LAYERS,
    ops.LinearLayer: linear,
    generator.SynthesisLayer: conv,
    generator.ToRGBLayer: conv,
    generator.SynthesisNetwork: constant,
    discriminator.FromRGBLayer: conv,
    discriminator.DiscriminatorLayer: conv,
}
IMAGES = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
FACES = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
NOISE = jax.ShapeDtypeStruct((2, 512), jnp.float32)


def reshape(x: jax.Array, shape: Any = None, newshape: Any = None) -> jax.Array:
    """Returns ``jnp.reshape`` with its argument's old name, which StyleGAN2 uses."""
    return RESHAPE(x, newshape if shape is None else shape)


RESHAPE = jnp.reshape


def style_gan(create: Callable[[], Any], inputs: Any, **options: Any) -> Model:
    """Returns a network of StyleGAN2, for images of 64 x 64."""
    old_name = mock.patch.object(jnp, "reshape", reshape)
    with old_name:
        model = linen_layers.model(create(), inputs, layers=LAYERS, **options)
    return dataclasses.replace(model, apply=old_name(model.apply))


MODELS: Mapping[str, Callable[[], Model]] = {
    "ResNet18": lambda: linen_layers.model(
        flaxmodels.ResNet18(pretrained=None), IMAGES, train=True
    ),
    "ResNet50": lambda: linen_layers.model(
        flaxmodels.ResNet50(pretrained=None), IMAGES, train=True
    ),
    "VGG16": lambda: linen_layers.model(
        flaxmodels.VGG16(pretrained=None), IMAGES, train=True
    ),
    "StyleGAN2 generator": lambda: style_gan(
        lambda: generator.Generator(resolution=64), NOISE, train=True
    ),
    "StyleGAN2 discriminator": lambda: style_gan(
        lambda: discriminator.Discriminator(resolution=64), FACES
    ),
}
