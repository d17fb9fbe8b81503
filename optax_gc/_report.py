"""What centralizing does to each leaf, and how much it removes."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optax_gc._axes import AxesSpec, Leaf, PyTree, fan_in, notes, resolve
from optax_gc._centralize import centralize, widen

_COLUMNS: dict[str, Callable[[Leaf], str]] = {
    "shape": lambda leaf: str(leaf.shape),
    "fan-in axes": lambda leaf: "-" if leaf.axes is None else str(leaf.axes),
    "size": lambda leaf: "-" if leaf.fan_in is None else str(leaf.fan_in),
    "chance": lambda leaf: _percent(leaf.chance),
    "why": lambda leaf: f"{leaf.why} ?" if leaf.doubt else leaf.why,
}
_NAMES = ("path", "shape", "fan-in axes", "size", "removed", "chance", "why")
_REPEATED = 3  # rows that differ only in one number of their paths, to share a line
_MEASURED = ("removed", "chance")  # shown if updates were given
_NUMBERS = ("size", *_MEASURED)
_Key = tuple[str, str, Any]  # a path before and after a number, and what must be equal
_NO_KEY: _Key = ("", "", None)
_RANGE = re.compile(r"[0-9]+\.\.[0-9]+")


@dataclasses.dataclass(frozen=True)
class Report:
    """A table of what centralizing does to each leaf; print it, or read its `rows`.

    Three or more leaves that differ only in one number of their paths, like the layers
    of a stack, are printed as one line: ``h/0..11/mlp/kernel x 12``.

    Attributes:
      rows: One `Leaf` for each leaf.
      notes: What else deserves attention: patterns without effect, or that no leaf is
        centralized.
      tree: The same rows in the structure of the parameters, to map over together with
        them: ``jax.tree.map(lambda leaf: leaf.axes, report.tree)``.
    """

    rows: tuple[Leaf, ...]
    notes: tuple[str, ...]
    tree: PyTree = dataclasses.field(repr=False, compare=False)

    def __str__(self) -> str:
        header, *body = self._cells()
        widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
        numbers = [name in _NUMBERS for name in header]

        def line(cells: Sequence[str], rule: bool = False) -> str:
            padded = (
                cell.rjust(width) if number and not rule else cell.ljust(width)
                for cell, width, number in zip(cells, widths, numbers, strict=True)
            )  # fmt: skip
            return "  ".join(padded).rstrip()

        rule = ["-" * width for width in widths]
        lines = [line(header), line(rule), *map(line, body), "", *self._footer()]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            cell = (f"<{tag}>{html.escape(text)}</{tag}>" for text in cells)
            return f"<tr>{''.join(cell)}</tr>"

        header, *body = self._cells()
        lines = "".join(row(cells, "td") for cells in body)
        footer = "<br>".join(map(html.escape, self._footer()))
        return f"<table>{row(header, 'th')}{lines}</table><p>{footer}</p>"

    def _cells(self) -> list[list[str]]:
        measured = any(leaf.removed is not None for leaf in self.rows)
        names = [name for name in _NAMES if measured or name not in _MEASURED]
        lines = []
        for path, leaves in grouped(self.rows):
            cells = {name: write(leaves[0]) for name, write in _COLUMNS.items()}
            cells["removed"] = _range([leaf.removed for leaf in leaves])
            cells["path"] = path if len(leaves) == 1 else f"{path} x {len(leaves)}"
            lines.append([cells[name] for name in names])
        return [names, *lines]

    def _footer(self) -> list[str]:
        chosen = [leaf for leaf in self.rows if leaf.axes is not None]
        numbers = sum(math.prod(leaf.shape) for leaf in self.rows)
        share = sum(math.prod(leaf.shape) for leaf in chosen) / max(numbers, 1)
        total = (
            f"{len(chosen)} of {len(self.rows)} leaves are centralized, "
            f"{share:.1%} of {numbers:,} parameters."
        )
        doubts = [
            f"? {path}: {leaves[0].doubt}. Settle it with "
            f"{{{_RANGE.sub('*', path)!r}: {leaves[0].axes}}} or other axes."
            for path, leaves in grouped(self.rows)
            if leaves[0].doubt
        ]
        return [total, *doubts, *self.notes]


def grouped(rows: Sequence[Leaf]) -> Iterator[tuple[str, list[Leaf]]]:
    """Yields the rows, with those of repeated layers together, in the original order.

    Each group has a path, in which the numbers of the layers are shown as ``0..11``.
    """
    alike: dict[_Key, dict[int, Leaf]] = {}
    for row in rows:
        for key, number in _templates(row):
            alike.setdefault(key, {})[number] = row
    done: set[str] = set()
    for row in rows:
        if row.path in done:
            continue
        keys = [key for key, _ in _templates(row)]
        best = max(keys, key=lambda key: len(alike[key]), default=_NO_KEY)
        stack = alike.get(best, {})
        first, last = min(stack, default=0), max(stack, default=0)
        paths = {leaf.path for leaf in stack.values()}
        gaps = last - first + 1 > len(stack)
        if len(stack) < _REPEATED or gaps or done & paths:
            yield row.path, [row]
            continue
        done |= paths
        leaves = [stack[number] for number in range(first, last + 1)]
        yield f"{best[0]}{first}..{last}{best[1]}", leaves


def _templates(row: Leaf) -> Iterator[tuple[_Key, int]]:
    """Yields, for each number in a path, what rows that differ only in it share."""
    same = (row.shape, row.axes, row.outputs, row.stacked, row.why, row.doubt)
    for found in re.finditer(r"[0-9]+", row.path):
        yield (row.path[: found.start()], row.path[found.end() :], same), int(found[0])


def describe(
    params: PyTree, axes: AxesSpec = fan_in, *, updates: PyTree | None = None
) -> Report:
    """Returns a table of what `centralize_gradients(axes)` does to each leaf.

    Look at it before you train: a ``?`` marks a leaf whose axes are in doubt, and a
    line below the table says what else they might be. With the gradients of a batch as
    `updates`, it also shows which leaves will notice: next to the share of each
    gradient's energy that centralizing removes is the share that it would remove from
    noise, 1 / fan-in.

    Args:
      params: Parameters; shapes and dtypes are enough, as from `jax.eval_shape`.
      axes: As for `centralize_gradients`.
      updates: Gradients or updates to measure, with the structure of `params`.

    Returns:
      A `Report`, which prints in a terminal and shows in a notebook. Its ``rows`` have
      the attributes ``path``, ``shape``, ``axes``, ``fan_in``, ``why``, ``doubt``,
      ``outputs``, ``stacked``, ``removed`` and ``chance``. Its ``tree`` has the rows in
      the structure of `params`, for your own rules that depend on a leaf's axes.

    Raises:
      ValueError: If `updates` has another structure than `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import describe
      >>> describe({"kernel": jnp.ones((512, 10)), "bias": jnp.ones(10)})
      path    shape      fan-in axes  size  why
      ------  ---------  -----------  ----  ----------
      bias    (10,)      -               -  rank 1
      kernel  (512, 10)  (0,)          512  bias (10,)
      <BLANKLINE>
      1 of 2 leaves are centralized, 99.8% of 5,130 parameters.
    """
    resolved = resolve(params, axes)
    if updates is not None:
        resolved = _measured(resolved, updates, axes)
    rows = tuple(jax.tree.leaves(resolved))
    return Report(rows, (*notes(rows, axes), *_unused(rows)), resolved)


def _unused(rows: Sequence[Leaf]) -> list[str]:
    """Returns a line on the leaves without a gradient in the traced program, if any."""
    counts = Counter(row.why for row in rows)
    ways = [why for why in ("never used", "behind stop_gradient") if counts[why]]
    if not ways:
        return []
    said = " and ".join(
        f"{counts[why]} {'is' if counts[why] == 1 else 'are'} {why}" for why in ways
    )
    return [
        f"In what was traced, of {len(rows)} leaves {said}. If they are trained, trace "
        "the loss that is."
    ]


def _measured(resolved: PyTree, updates: PyTree, axes: AxesSpec) -> PyTree:
    """Returns the rows with the shares of `updates` that centralizing removes."""

    def measure(row: Leaf | None, update: Any, share: jax.Array | None) -> Leaf | None:
        if row is None or row.axes is None:
            return row
        if update is None or share is None:
            raise TypeError(
                "`updates` must have an array wherever a leaf is centralized, got None "
                f"for {row.path!r}. Pass the gradients of a batch with respect to all "
                f"of `params`, or leave it alone with {{{row.path!r}: None}}."
            )
        return dataclasses.replace(row, removed=float(share))

    try:
        return jax.tree.map(
            measure, resolved, updates, removed_energy(updates, axes), is_leaf=_is_none
        )
    except ValueError as error:
        raise ValueError(
            f"`updates` must have the structure of `params`, got {error}. Pass the "
            "gradients of a batch with respect to all of `params`."
        ) from error


def _is_none(leaf: Any) -> bool:
    return leaf is None


def removed_energy(updates: PyTree, axes: AxesSpec = fan_in) -> PyTree:
    """Returns the share of each leaf's squared norm that centralizing removes.

    For a gradient ``G`` with fan-in means ``m`` it is ``||m||^2 / ||G||^2``, with ``m``
    broadcast over the fan-in. It is 0 for a leaf that is already centralized, is left
    alone or is 0, and 1 for one that is constant along its fan-in and would never
    train. To log it, place `optax.snapshot` or `optax.monitor` before
    `centralize_gradients`.

    Args:
      updates: Gradients or updates.
      axes: As for `centralize_gradients`.

    Returns:
      A tree of float32 scalars in [0, 1], with the structure of `updates`.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import removed_energy
      >>> print(removed_energy({"kernel": jnp.array([[4.0], [2.0]])})["kernel"])
      0.9
    """
    return jax.tree.map(_removed, updates, resolve(updates, axes))


def _removed(leaf: jax.typing.ArrayLike, row: Leaf) -> jax.Array:
    if row.axes is None:
        return jnp.zeros((), jnp.float32)
    x = widen(jnp.asarray(leaf))
    largest = jnp.max(jnp.abs(x))
    # Squares of numbers up to 1 do not overflow, and their sum is at least 1.
    x = x / jnp.where(largest > 0, largest, 1).astype(x.dtype)
    share = _energy(x - centralize(x, row.axes)) / jnp.maximum(_energy(x), 1)
    return jnp.minimum(share, 1).astype(jnp.float32)


def _energy(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(jnp.abs(x)))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _range(shares: Sequence[float | None]) -> str:
    """Returns the share if all are equal, else the smallest and the largest."""
    known = sorted(share for share in shares if share is not None)
    if not known:
        return "-"
    low, high = _percent(known[0]), _percent(known[-1])
    return high if low == high else f"{low.removesuffix('%')}..{high}"
