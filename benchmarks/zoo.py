"""How many leaves of published models each reader of axes gets right.

    python -m venv zoo && zoo/bin/pip install uv
    VIRTUAL_ENV=zoo zoo/bin/uv pip install --no-deps -r benchmarks/zoo-requirements.txt -e .
    zoo/bin/python benchmarks/zoo.py [--libraries haiku keras ...]

The truth about a leaf is what its layer's own definition says, by class and attributes
(`zoo_models`); `fan_in` is given the parameters, `traced_fan_in` the forward pass as
well. No weights are loaded, and nothing but shapes is computed.
"""

import argparse
import importlib
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import jax
from optax_gc import describe, fan_in, traced_fan_in
from optax_gc._axes import Policy
from rich import box
from rich.console import Console
from rich.table import Table

from zoo_models.model import Model, verdict

LIBRARIES = {  # a library's name: the module with its models, what must be installed
    "huggingface": "transformers",
}
READERS: Mapping[str, Callable[[Model], Policy]] = {
    "fan_in": lambda _: fan_in,
    "traced_fan_in": lambda model: traced_fan_in(
        model.apply, model.params, *model.inputs
    ),
}
COLUMNS = ("right", "wrong ?", "wrong in silence", "right ?", "two ways said")


def count(model: Model, policy: Policy) -> tuple[Counter[str], list[str]]:
    """Returns how many leaves of rank 2 or more have each verdict, and the faults."""
    verdicts, faults = Counter(), []
    for row in describe(model.params, policy).rows:
        if row.path in model.truth:
            found = verdict(row, model.truth[row.path])
            verdicts[found] += 1
            if found not in ("right", "two ways said"):
                faults.append(f"{found}: {row.path} {row.shape} {row.axes} {row.why}")
    return verdicts, faults
