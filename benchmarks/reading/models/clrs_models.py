"""CLRS's processors of graphs that learn algorithms, in Haiku."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from clrs import _src

from benchmarks.reading.models import haiku_layers
from benchmarks.reading.models.model import ELEMENTWISE, LOOKED_UP, Axes, Model

processors = _src.processors
BATCH, NODES, FEATURES = 2, 6, 16


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((BATCH, *sizes), jnp.float32)


GRAPH = (
    shape(NODES, FEATURES),
    shape(NODES, NODES, FEATURES),
    shape(FEATURES),
    shape(NODES, NODES),
    shape(NODES, FEATURES),
)


def memory(*_: Any) -> Mapping[str, Axes]:
    words = ("query_biases", "stories_biases", "output_biases")
    return dict.fromkeys(words, LOOKED_UP) | {"memory_contents": ELEMENTWISE}


LAYERS = {**haiku_layers.LAYERS, processors.MemNetMasked: memory}


def build(kind: str) -> Model:
    """Returns two steps of a processor, whose layers they share."""
    factory = processors.get_processor_factory(
        kind, use_ln=True, nb_triplet_fts=8, nb_heads=4
    )

    def forward(nodes: Any, edges: Any, graph: Any, adjacency: Any, hidden: Any) -> Any:
        processor = factory(FEATURES)
        for _ in range(2):
            hidden, new = processor(
                nodes, edges, graph, adjacency, hidden, batch_size=BATCH, nb_nodes=NODES
            )
            edges = edges if new is None else new
        return hidden, edges

    return haiku_layers.model(forward, *GRAPH, layers=LAYERS)


MODELS: Mapping[str, Callable[[], Model]] = {
    kind: functools.partial(build, kind)
    for kind in (
        *("deepsets", "gat", "gat_full", "gatv2", "gatv2_full"),
        *("memnet_full", "memnet_masked", "mpnn", "pgn", "pgn_mask", "triplet_mpnn"),
        *("triplet_pgn", "triplet_gpgn", "triplet_gmpnn", "gmpnn"),
    )
}
