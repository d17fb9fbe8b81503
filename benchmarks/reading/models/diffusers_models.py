"""Stable Diffusion's Flax models in Hugging Face's diffusers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from diffusers.models.controlnets.controlnet_flax import FlaxControlNetModel
from diffusers.models.unets.unet_2d_condition_flax import FlaxUNet2DConditionModel
from diffusers.models.vae_flax import FlaxAutoencoderKL

from benchmarks.reading.models import linen_layers
from benchmarks.reading.models.model import Model


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


LATENTS = shape(1, 4, 32, 32)
STEP = shape(1, dtype=jnp.int32)
TEXT = shape(1, 77, 1280)

MODELS: Mapping[str, Callable[[], Model]] = {
    "UNet2DCondition": lambda: linen_layers.model(
        FlaxUNet2DConditionModel(), LATENTS, STEP, TEXT
    ),
    "ControlNet": lambda: linen_layers.model(
        FlaxControlNetModel(), LATENTS, STEP, TEXT, shape(1, 3, 256, 256)
    ),
    "AutoencoderKL": lambda: linen_layers.model(
        FlaxAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        ),
        shape(1, 3, 64, 64),
    ),
}
