"""Makes tables of the record of `benchmarks.accelerator`."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from benchmarks.cost.tables import blank_table
from benchmarks.cost.updates import CENTRALIZE, cell

PARTS = (
    "gather", "augmentation", "network", "update", "removed shares", "left over",
    "whole step",
)  # fmt: skip
ARMS = tuple(arm for arm in CENTRALIZE if arm != "alone")
FAILED, NONE = "failed", "-"


def tables(record: dict[str, Any]) -> Iterator[RenderableType]:
    """Yields the device, the tables, and the failures."""
    yield device(record["device"])
    yield epochs(record.get("tasks", {}))
    yield losses(record["losses"])
    yield steps(record.get("tasks", {}))
    yield updates(record.get("updates", {}))
    yield from failures(record)


def device(found: dict[str, Any]) -> str:
    """Returns the lines about the device, the versions and the peaks."""
    if FAILED in found:
        return ""
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    kinds = sorted(set(found["devices"]))
    names = ", ".join(f"{found['devices'].count(kind)} x {kind}" for kind in kinds)
    lines = [f"\n{names}; driver {found['driver'] or 'none'}; {versions}"]
    for precision, peak in found["peaks"].items():
        if FAILED not in peak:
            speeds = (peak["flop_per_second"], peak["product_per_second"])
            tera, product = (f"{speed / 1e12:.3g}" for speed in speeds)
            lines.append(
                f"Peak in {precision}: {tera} TFLOP/s ({peak['source']}); "
                f"a matrix product reaches {product}."
            )
    return "\n".join(lines) + "\n"


def epochs(tasks: dict[str, Any]) -> Table:
    """Returns the table of epochs."""
    columns = ("precision", "feed", "compile, s", "first step, s", "epoch, s")
    columns += ("a second", "of peak", "peak memory, MB")
    table = blank_table("An epoch", "task", *columns)
    for name, precision, task in each(tasks):
        for where, timed in task.get("feeds", {"": task}).items():
            head = (name, precision, where)
            if FAILED in timed:
                table.add_row(*head, FAILED)
                continue
            spent = ("compile_seconds", "first_step_seconds", "epoch_seconds")
            table.add_row(
                *head,
                *(f"{timed[key]:.3g}" for key in spent),
                f"{timed['per_second']:,.0f} {task['unit']}",
                percent(timed["share_of_peak"], 1),
                scaled(timed["peak_bytes"], 1e-6, 0),
            )
    return table


def losses(found: dict[str, Any]) -> Table:
    """Returns the table of mean losses in both precisions."""
    columns = ("steps", "float32", "bfloat16", "difference", "allowed")
    table = blank_table("Mean loss over the first steps", "task", *columns)
    for name, pair in found.items():
        table.add_row(
            name,
            str(pair["steps"]),
            *(f"{pair[precision]:.4f}" for precision in ("float32", "bfloat16")),
            percent(pair["relative_difference"], 2),
            percent(pair["tolerance"], 0) + ("" if pair["agree"] else ": not met"),
        )
    return table


def steps(tasks: dict[str, Any]) -> Table:
    """Returns the table of the parts of a step."""
    title = "A step of the host's feed with its batch on the devices, ms"
    table = blank_table(title, "task", "precision", *PARTS)
    for name, precision, task in each(tasks):
        spent = task.get("step_seconds", task)
        cells = [scaled(spent.get(part), 1e3, 2) for part in PARTS]
        table.add_row(name, precision, *([FAILED] if FAILED in spent else cells))
    return table


def updates(found: dict[str, Any]) -> Table:
    """Returns the table of the update's time with centralization over that without."""
    columns = ("optimizer", "alone, ms", *ARMS)
    table = blank_table("The update's time over the optimizer's", "model", *columns)
    for model, optimizers in found.items():
        if FAILED in optimizers:
            table.add_row(model, FAILED)
            continue
        for label, spent in optimizers.items():
            ratios = [cell(spent[arm]) for arm in ARMS]
            table.add_row(model, label, scaled(spent["alone_seconds"], 1e3, 3), *ratios)
    return table


def failures(record: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields a line for each part that failed."""
    if not isinstance(record, dict):
        return
    if FAILED in record:
        yield f"{', '.join(path)}: {record[FAILED]}"
    for name, found in record.items():
        yield from failures(found, (*path, name))


def each(tasks: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields each task's name, precision and record."""
    for name, found in tasks.items():
        for precision, task in found.items():
            yield name, precision, task


def scaled(value: float | None, factor: float, digits: int) -> str:
    """Returns a cell in another unit."""
    return NONE if value is None else f"{factor * value:,.{digits}f}"


def percent(value: float | None, digits: int) -> str:
    """Returns a cell in percent."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"
