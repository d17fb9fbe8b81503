"""How each reader reads the zoo's leaves, and how long reading takes."""

import functools
import gc
import importlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from importlib.metadata import version
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.cost.tables import blank_table
from benchmarks.reading.models.model import Model, verdict
from optax_gc import describe, fan_in, traced_fan_in

READERS: Mapping[str, Callable[[Model], Any]] = {
    "fan_in": lambda _: fan_in,
    "traced_fan_in": lambda m: traced_fan_in(m.apply, m.params, *m.inputs),
}
KINDS = ("known", "new")  # models that the reader had met before, or had not
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


def row(
    name: str, models: Mapping[str, int], counts: Mapping[str, Counter[str]]
) -> Iterable[str]:
    """Returns a row of the table: each cell has one number for each reader."""
    yield name
    yield from (f"{models[kind]}" if kind in models else "" for kind in KINDS)
    yield f"{counts['fan_in']['leaves']:,}"
    for column in VERDICTS:
        cell = " → ".join(f"{found[column]:,}" for found in counts.values())
        total = counts["fan_in"]["in two ways"]
        yield f"{cell} of {total}" if column == "two ways" else cell


def read_libraries(
    libraries: Mapping[str, tuple[str, str]],
    console: Console,
    new: Container[str] = (),
) -> tuple[Table, list[str]]:
    """Returns the table of the installed libraries, and the faults.

    Args:
      libraries: for each, the module that has its models, and its distribution.
      console: where to report those that are left out.
      new: the libraries whose models the reader had not met; they are added up apart.
    """
    columns = ("library", *KINDS, "leaves", *VERDICTS)
    table = blank_table(None, *columns, lines=box.MARKDOWN)
    totals = {kind: {name: Counter[str]() for name in READERS} for kind in KINDS}
    models: Counter[str] = Counter()
    faults = []
    for name, (module, distribution) in libraries.items():
        try:
            library = importlib.import_module(f"benchmarks.reading.models.{module}")
        except ImportError as error:
            console.print(f"{name} is left out: no module named {error.name!r}.")
            continue
        counts, wrong = read_library(library.MODELS)
        title, kind = f"{name} {version(distribution)}", KINDS[name in new]
        table.add_row(*row(title, {kind: len(library.MODELS)}, counts))
        faults += [f"{name}, {fault}" for fault in wrong]
        models[kind] += len(library.MODELS)
        for reader, found in counts.items():
            totals[kind][reader] += found
    for kind, total in totals.items():
        if models[kind]:
            table.add_row(*row(f"all {kind}", {kind: models[kind]}, total))
    return table, faults


def seconds(function: Callable[[], Any]) -> float:
    """Returns how long a call takes when JAX has cached nothing.

    What earlier calls left is collected first, so that no call pays for another.
    """
    jax.clear_caches()
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_reading(rounds: int) -> Table:
    """Returns a table of the time to trace three models, and to trace and read them."""
    models = importlib.import_module("benchmarks.reading.models.huggingface").MODELS
    columns = ("model", "`make_jaxpr`, s", "`traced_fan_in`, s", "ratio")
    table = blank_table(None, *columns, lines=box.MARKDOWN)
    for title, name in TIMED.items():
        model = models[name]()
        functions = (trace(model), functools.partial(READERS["traced_fan_in"], model))
        times = [[seconds(function) for function in functions] for _ in range(rounds)]
        columns = [*zip(*times, strict=True), [read / alone for alone, read in times]]
        table.add_row(title, *(f"{statistics.median(c):.2f}" for c in columns))
    return table


def trace(model: Model) -> Callable[[], Any]:
    """Returns the time that JAX alone needs for a model's program."""
    return lambda: jax.make_jaxpr(model.apply)(model.params, *model.inputs)
