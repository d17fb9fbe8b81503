"""How many leaves of published models each reader of axes gets right.

    uv venv --python 3.11 zoo
    uv pip install --python zoo --no-deps -r benchmarks/zoo-requirements.txt -e .
    zoo/bin/python -m benchmarks.zoo [--libraries haiku keras ...]

The truth about a leaf is what its layer's own definition says, by class and attributes
(`zoo_models`). `fan_in` is given the parameters, `traced_fan_in` the forward pass too.
Nothing is loaded or downloaded: everything is traced with shapes alone.
"""

import functools
import importlib
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import commands
from benchmarks.zoo_models.model import Model, verdict
from optax_gc import describe, fan_in, traced_fan_in

# The module that has a library's models, and the distribution whose version is told.
LIBRARIES = {
    "flax": ("linen_models", "flax"),
    "transformers": ("huggingface", "transformers"),
    "diffusers": ("diffusers_models", "diffusers"),
    "flaxmodels": ("flaxmodels_models", "flaxmodels"),
    "gemma": ("gemma_models", "gemma"),
    "tunix": ("tunix_models", "google-tunix"),
    "haiku": ("haiku_models", "dm-haiku"),
    "equinox": ("equinox_models", "equinox"),
    "esm2quinox": ("esm2_models", "esm2quinox"),
    "equimo": ("equimo_models", "equimo"),
    "alphafold": ("alphafold_models", "alphafold-colabfold"),
    "keras": ("keras_models", "keras"),
    "keras-hub": ("keras_hub_models", "keras-hub"),
}
READERS: Mapping[str, Callable[[Model], Any]] = {
    "fan_in": lambda _: fan_in,
    "traced_fan_in": lambda m: traced_fan_in(m.apply, m.params, *m.inputs),
}
VERDICTS = ("right", "wrong ?", "silently wrong", "right ?", "two ways")
TIMED = {  # in transformers
    "ResNet-50": "FlaxResNetForImageClassification",
    "GPT-2": "FlaxGPT2LMHeadModel",
    "ViT, 12 layers": "FlaxViTForImageClassification",
}


def judge(model: Model, policy: Any) -> tuple[Counter[str], list[str]]:
    """Returns how many leaves of rank 2 or more have each verdict, and the faults."""
    counts: Counter[str] = Counter()
    faults = []
    for row in describe(model.params, policy).rows:
        if row.path not in model.truth:
            continue
        uses = model.truth[row.path]
        found = verdict(row, uses)
        counts[found] += 1
        counts["leaves"] += 1
        counts["in two ways"] += len(uses) > 1
        if found not in ("right", "two ways"):
            faults.append(
                f"{found}: {row.path} {row.shape} read {row.axes} ({row.why}; "
                f"{row.doubt}), is {' and '.join(map(str, uses))}"
            )
    return counts, faults


def read_library(
    models: Mapping[str, Callable[[], Model]],
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Returns each reader's counts over a library, and the faults of the traced one."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in READERS}
    faults = []
    for name, build in models.items():
        model = build()
        for reader, policy in READERS.items():
            found, wrong = judge(model, policy(model))
            counts[reader] += found
            if reader == "traced_fan_in":
                faults += [f"{name}: {fault}" for fault in wrong]
    return counts, faults


def row(name: str, models: int, counts: Mapping[str, Counter[str]]) -> Iterable[str]:
    """Returns a row of the table: each cell has one number for each reader."""
    yield name
    yield f"{models}"
    yield f"{counts['fan_in']['leaves']:,}"
    for column in VERDICTS:
        cell = " → ".join(f"{found[column]:,}" for found in counts.values())
        total = counts["fan_in"]["in two ways"]
        yield f"{cell} of {total}" if column == "two ways" else cell


def read_libraries(names: Sequence[str], console: Console) -> tuple[Table, list[str]]:
    """Returns the table of the libraries that are installed, and the faults."""
    table = blank_table("library", "models", "leaves", *VERDICTS)
    total: dict[str, Counter[str]] = {name: Counter() for name in READERS}
    models, faults = 0, []
    for name in names:
        module, distribution = LIBRARIES[name]
        try:
            library = importlib.import_module(f"benchmarks.zoo_models.{module}")
        except ImportError as error:
            console.print(f"{name} is left out: no module named {error.name!r}.")
            continue
        counts, wrong = read_library(library.MODELS)
        title = f"{name} {version(distribution)}"
        table.add_row(*row(title, len(library.MODELS), counts))
        faults += [f"{name}, {fault}" for fault in wrong]
        models += len(library.MODELS)
        for reader, found in counts.items():
            total[reader] += found
    table.add_row(*row("all", models, total))
    return table, faults


def seconds(function: Callable[[], Any]) -> float:
    """Returns how long a call takes of which JAX remembers nothing."""
    jax.clear_caches()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_reading(rounds: int) -> Table:
    """Returns a table of the time to trace three models, and to trace and read them."""
    models = importlib.import_module("benchmarks.zoo_models.huggingface").MODELS
    table = blank_table("model", "`make_jaxpr`, s", "`traced_fan_in`, s", "ratio")
    for title, name in TIMED.items():
        model = models[name]()
        functions = (trace(model), functools.partial(READERS["traced_fan_in"], model))
        times = [[seconds(function) for function in functions] for _ in range(rounds)]
        columns = [*zip(*times, strict=True), [read / alone for alone, read in times]]
        table.add_row(title, *(f"{statistics.median(c):.2f}" for c in columns))
    return table


def trace(model: Model) -> Callable[[], Any]:
    """Returns what JAX alone needs for a model's program."""
    return lambda: jax.make_jaxpr(model.apply)(model.params, *model.inputs)


def blank_table(*columns: str) -> Table:
    """Returns a Markdown table of no rows, numbers to the right."""
    table = Table(box=box.MARKDOWN)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def main() -> None:
    """Reads what the flags ask for and prints the tables."""
    args = commands.parse("zoo")
    # The models are JAX's, whatever else is installed, and nothing is worth a GPU.
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(KERAS_BACKEND="jax", USE_TF="0", USE_TORCH="0")
    console = Console(width=140, highlight=False)
    console.print(
        f"jax {jax.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores; each cell: fan_in → traced_fan_in\n"
    )
    table, faults = read_libraries(args.libraries, console)
    console.print(table)
    if args.rounds and "transformers" in args.libraries:
        console.print(time_reading(args.rounds))
    for fault in faults:
        console.print(fault, soft_wrap=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
