"""AlphaFold in Haiku, from ColabFold: its Evoformer and its structure module."""

from collections.abc import Callable, Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from alphafold.model import common_modules, folding, modules
from alphafold.model.config import model_config

from benchmarks.reading.models import haiku_layers
from benchmarks.reading.models.model import ELEMENTWISE, Axes, Model


def linear(layer: common_modules.Linear, _: str) -> Mapping[str, Axes]:
    outputs = layer.num_output_dims
    inputs = tuple(range(-layer.num_input_dims - outputs, -outputs))
    return {"weights": inputs, "bias": ELEMENTWISE}


def attention(*_: Any) -> Mapping[str, Axes]:
    kernels = dict.fromkeys(("query_w", "key_w", "value_w", "gating_w"), (-3,))
    return kernels | {"output_w": (-3, -2), "gating_b": ELEMENTWISE}


def global_attention(*_: Any) -> Mapping[str, Axes]:
    return attention() | {"key_w": (-2,), "value_w": (-2,)}  # one head


def pair_bias(*_: Any) -> Mapping[str, Axes]:
    return {"feat_2d_weights": (-2,)}


def outer_product(*_: Any) -> Mapping[str, Axes]:
    return {"output_w": (-3, -2)}


LAYERS = {
    **haiku_layers.LAYERS,
    common_modules.Linear: linear,
    modules.Attention: attention,
    modules.GlobalAttention: global_attention,
    modules.MSARowAttentionWithPairBias: pair_bias,
    modules.TriangleAttention: pair_bias,
    modules.OuterProductMean: outer_product,
}
CONFIG = model_config("model_1").model
RESIDUES, SEQUENCES = 64, 512  # with fewer, the same products have another order


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def evoformer(is_extra_msa: bool, channels: int) -> Model:
    """Returns a block of the main stack, or of that of the extra sequences."""
    parts = CONFIG.embeddings_and_evoformer
    masks = {"msa": shape(SEQUENCES, RESIDUES), "pair": shape(RESIDUES, RESIDUES)}
    activations = {
        "msa": shape(SEQUENCES, RESIDUES, channels),
        "pair": shape(RESIDUES, RESIDUES, parts.pair_channel),
    }

    def forward(activations: Any, masks: Any) -> Any:
        block = modules.EvoformerIteration(
            parts.evoformer, CONFIG.global_config, is_extra_msa
        )
        return block(activations, masks)

    return haiku_layers.model(forward, activations, masks, layers=LAYERS)


def structure() -> Model:
    """Returns the structure module, whose layers are shared by its iterations."""
    representations = {
        "single": shape(RESIDUES, 384),
        "pair": shape(RESIDUES, RESIDUES, 128),
    }
    batch = {
        "seq_mask": shape(RESIDUES),
        "aatype": shape(RESIDUES, dtype=jnp.int32),
        "atom14_atom_exists": shape(RESIDUES, 14),
        "atom37_atom_exists": shape(RESIDUES, 37),
        "residx_atom37_to_atom14": shape(RESIDUES, 37, dtype=jnp.int32),
    }

    def forward(representations: Any, batch: Any) -> Any:
        module = folding.StructureModule(
            CONFIG.heads.structure_module, CONFIG.global_config
        )
        outputs = module(representations, batch, is_training=False)
        return hk.data_structures.to_mutable_dict(outputs)

    return haiku_layers.model(forward, representations, batch, layers=LAYERS)


MODELS: Mapping[str, Callable[[], Model]] = {
    "Evoformer": lambda: evoformer(False, 256),
    "Evoformer, extra sequences": lambda: evoformer(True, 64),
    "structure module": structure,
}
