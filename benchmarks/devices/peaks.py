"""The peak speed at which devices multiply, as published or as measured here."""

import statistics
import time
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from train.engine.batches import all_devices

Peaks: TypeAlias = dict[str, float]

TERA = 1e12
ROUNDS, MULTIPLICATIONS = 5, 10

# Sources for dense products, without sparsity, by JAX's name of the device. For float32
# it is the speed of the format in which JAX's default precision multiplies: TF32 on
# NVIDIA from Ampere on, bfloat16 on TPUs.
#   https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet
#   https://www.nvidia.com/en-us/data-center/h200/ (as the H100 SXM)
#   https://www.nvidia.com/en-us/data-center/a100/
#   https://www.nvidia.com/en-us/data-center/l4/
#   https://www.nvidia.com/en-us/data-center/tesla-t4/ (no TF32, no bfloat16)
#   https://docs.cloud.google.com/tpu/docs/v4, and likewise v5e, v5p, v6e
_HOPPER = {"float32": 494.7, "bfloat16": 989.4}
_A100 = {"float32": 156.0, "bfloat16": 312.0}
_V5E, _V5P, _V6E = (dict.fromkeys(_A100, x) for x in (197.0, 459.0, 918.0))
TERAFLOP_PER_SECOND: dict[str, Peaks] = {
    "NVIDIA H100 80GB HBM3": _HOPPER,
    "NVIDIA H200": _HOPPER,
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA L4": {"float32": 60.0, "bfloat16": 121.0},
    "Tesla T4": {"float32": 8.1},
    "TPU v4": dict.fromkeys(_A100, 275.0),
    "TPU v5 lite": _V5E,
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
}


def published(kind: str, precision: str) -> float | None:
    """Returns the published operations per second of one device, None if unknown."""
    peak = TERAFLOP_PER_SECOND.get(kind, {}).get(precision)
    return peak and peak * TERA


def measured(precision: str, side: int) -> float:
    """Returns the operations per second of square matrix products, on all devices."""
    mesh = all_devices()
    shape = (mesh.size, side, side)
    a = jax.device_put(jnp.ones(shape, precision), NamedSharding(mesh, P("batch")))

    @jax.jit
    def multiply(b: Array) -> Array:
        return jnp.einsum("dij,djk->dik", a, b) / side  # the same ones again

    b, seconds = jax.block_until_ready(multiply(a)), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(MULTIPLICATIONS):
            b = multiply(b)
        jax.block_until_ready(b)
        seconds.append(time.perf_counter() - start)
    flop = MULTIPLICATIONS * 2 * mesh.size * side**3
    return flop / statistics.median(seconds)


def peak(precision: str, side: int) -> dict[str, Any]:
    """Returns the speed that counts as the peak, and its source."""
    device = jax.devices()[0]
    found, known = measured(precision, side), published(device.device_kind, precision)
    source = f"matrix product of side {side}" if known is None else "published"
    peak = found if known is None else known * jax.device_count()
    return {"flop_per_second": peak, "source": source, "product_per_second": found}
