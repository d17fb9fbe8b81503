"""FlowJAX's normalizing flows, in Equinox, each by its density."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flowjax import bijections, distributions, flows

from benchmarks.reading.models import equinox_layers
from benchmarks.reading.models.model import ELEMENTWISE, Axes, Model, Path

KEY = jax.random.key(0)
SIZE, CONDITION = 6, 5
# A weight may be wrapped: masked, normalized or both.
WRAPPED = {"*/weight/*": (-1,), "*/weight/scale*": ELEMENTWISE}
SPLINE = dict.fromkeys(("*/x_pos/*", "*/y_pos/*", "*/derivatives/*"), ELEMENTWISE)


def build(
    flow: Callable[..., Any],
    also: Mapping[Path, Axes] | None = None,
    flow_layers: int = 3,
    made: bool = False,
    **options: Any,
) -> Model:
    """Returns a conditional flow, by the logarithm of its density.

    It is `made` beforehand if its making cannot be traced.
    """
    base = distributions.Normal(jnp.zeros(SIZE))
    options |= {"base_dist": base, "cond_dim": CONDITION, "flow_layers": flow_layers}
    create = functools.partial(flow, KEY, **options)
    if made:
        flow = create()
        create = lambda: flow  # noqa: E731
    sizes = (SIZE,), (CONDITION,)
    return equinox_layers.model(
        create,
        *(jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes),
        call=lambda flow, x, condition: flow.log_prob(x, condition),
        also=also,
    )


TRIANGULAR = WRAPPED | {"*/triangular/*": (-1,), "*/loc": ELEMENTWISE} | SPLINE
# Each layer's kernel also is a factor of the Jacobian, from the left: it is contracted
# over its outputs there, but for the last, which has nothing before it.
JACOBIAN = {"*/layers/[01]/0/weight/*/args/0": (-2,)}
SPLINES = bijections.RationalQuadraticSpline(knots=7, interval=3)
MODELS: Mapping[str, Callable[[], Model]] = {
    "coupling": lambda: build(flows.coupling_flow, nn_width=32),
    "coupling, of splines": lambda: build(
        flows.coupling_flow, nn_width=32, transformer=SPLINES
    ),
    "masked autoregressive": lambda: build(
        flows.masked_autoregressive_flow, WRAPPED, nn_width=32
    ),
    "masked autoregressive, inverse": lambda: build(
        flows.masked_autoregressive_flow, WRAPPED, nn_width=32, invert=False
    ),
    "masked autoregressive, of splines": lambda: build(
        flows.masked_autoregressive_flow, WRAPPED, nn_width=32, transformer=SPLINES
    ),
    "block neural autoregressive": lambda: build(
        flows.block_neural_autoregressive_flow,
        WRAPPED | JACOBIAN,
        nn_block_dim=4,
        nn_depth=2,
        flow_layers=1,
        invert=True,
    ),
    "planar": lambda: build(flows.planar_flow, width_size=16, depth=2),
    "triangular, of splines": lambda: build(
        flows.triangular_spline_flow, TRIANGULAR, knots=7, made=True
    ),
}
