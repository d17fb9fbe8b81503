"""Equimo's vision models, in Equinox."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from equimo import models
from equimo.layers import convolution, ffn, norm, posemb

from benchmarks.reading.models import equinox_layers
from benchmarks.reading.models.equinox_layers import NORM
from benchmarks.reading.models.model import ELEMENTWISE, Model, always

LAYERS = {
    **equinox_layers.LAYERS,
    convolution.ATConv: always(difference_control=ELEMENTWISE),
    ffn.WeightNormLinear: always(weight_v=(-1,), weight_g=ELEMENTWISE),
    norm.RMSNormGated: always(w=ELEMENTWISE),
    norm.LayerNorm2d: NORM,
    norm.RMSNorm2d: NORM,
    posemb.LearnedPosEmbed: always(weight=ELEMENTWISE),
    models.VisionTransformer: always(
        cls_token=ELEMENTWISE, reg_tokens=ELEMENTWISE, mask_token=ELEMENTWISE
    ),
}


def build(name: str, size: int = 224, **options: Any) -> Model:
    """Returns a model of the library's registry, for square images of `size`."""
    create = functools.partial(getattr(models, name), **options)
    images = jax.ShapeDtypeStruct((3, size, size), jnp.float32)
    key = jax.random.key(0)
    return equinox_layers.model(
        create,
        images,
        call=lambda model, x: model(x, key=key, inference=True),
        layers=LAYERS,
    )


SIZES = {"dinov2_vits14_reg": 518, "tips_vits14_hr": 448}
MODELS: Mapping[str, Callable[[], Model]] = {
    name: functools.partial(build, name, SIZES.get(name, 224))
    for name in (
        "attnet_xxs",
        "convnext_t",
        "dinov2_vits14_reg",
        "dinov3_vits16_pretrain_lvd1689m",
        "iformer_t",
        "mobilenetv3_large",
        "mobilenetv3_small",
        "reduceformer_backbone_b1",
        "siglip2_vitb16_224",
        "tips_vits14_hr",
        "vit5_small",
        "vit_base_patch16_224",
    )
} | {
    "lowformer_backbone_b0": functools.partial(
        build, "lowformer_backbone_b0", 256, attention_type="softmax"
    )
}
