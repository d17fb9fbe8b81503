"""JraphX's graph neural networks, in Flax NNX."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jraphx.nn as jx
from flax import nnx

from benchmarks.reading.models import nnx_layers
from benchmarks.reading.models.model import Model

NODES, EDGES, FEATURES, OF_EDGES = 9, 20, 7, 5
X = jax.ShapeDtypeStruct((NODES, FEATURES), jnp.float32)
GRAPH = jax.ShapeDtypeStruct((2, EDGES), jnp.int32)
ATTRIBUTES = jax.ShapeDtypeStruct((EDGES, OF_EDGES), jnp.float32)
SCORES = {
    "*att_*": (-1,),
    "*/att": (-1,),
    "att": (-1,),
}  # (heads, out), summed over out


def build(
    create: Callable[..., nnx.Module],
    *options: Any,
    attributes: bool = False,
    **named: Any,
) -> Model:
    """Returns a network for a graph of a few nodes."""
    edges = {"edge_attr": ATTRIBUTES} if attributes else {}
    return nnx_layers.model(
        lambda: create(*options, rngs=nnx.Rngs(0), **named),
        X,
        GRAPH,
        also=SCORES,
        **edges,
    )


def edge_mlp(rngs: nnx.Rngs) -> nnx.Module:
    return jx.EdgeConv(jx.MLP([2 * FEATURES, 16, 12], rngs=rngs))


MODELS: Mapping[str, Callable[[], Model]] = {
    "GCN": lambda: build(jx.GCN, FEATURES, 16, 3, 4),
    "GAT": lambda: build(jx.GAT, FEATURES, 16, 3, 4, heads=4),
    "GATv2": lambda: build(jx.GAT, FEATURES, 16, 3, 4, heads=4, v2=True),
    "GAT, of edges": lambda: build(
        jx.GATConv, FEATURES, 6, heads=4, edge_dim=OF_EDGES, attributes=True
    ),
    "GATv2, of edges": lambda: build(
        jx.GATv2Conv, FEATURES, 6, heads=4, edge_dim=OF_EDGES, attributes=True
    ),
    "GraphSAGE": lambda: build(jx.GraphSAGE, FEATURES, 16, 3, 4),
    "GIN": lambda: build(jx.GIN, FEATURES, 16, 3, 4),
    "GIN, jumping": lambda: build(jx.GIN, FEATURES, 16, 3, 4, jk="cat"),
    "EdgeConv": lambda: build(edge_mlp),
    "transformer": lambda: build(
        jx.TransformerConv,
        FEATURES,
        6,
        heads=4,
        beta=True,
        edge_dim=OF_EDGES,
        attributes=True,
    ),
}
