"""What centralizing does: to which leaf, and to how much of it."""

import dataclasses
import html
import math

import jax
import jax.numpy as jnp

from optax_gc._axes import AxesSpec, Leaf, PyTree, fan_in, notes, resolve
from optax_gc._centralize import centralize, widen

_HEADER = ("path", "shape", "fan-in axes", "size", "why")


@dataclasses.dataclass(frozen=True)
class Report:
    """A table of what centralizing does to each leaf; print it, or read its `rows`.

    Attributes:
      rows: One for each leaf, with ``path``, ``shape``, ``axes``, ``fan_in``, ``why``
        and ``doubt``.
      notes: What else deserves a look: idle patterns, and whether no leaf is
        centralized.
    """

    rows: tuple[Leaf, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        cells = [_HEADER, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [_align(row, widths) for row in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, "", *self._footer()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def row(cells: tuple[str, ...], tag: str) -> str:
            cell = (f"<{tag}>{html.escape(text)}</{tag}>" for text in cells)
            return f"<tr>{''.join(cell)}</tr>"

        body = "".join(row(_cells(leaf), "td") for leaf in self.rows)
        footer = "<br>".join(map(html.escape, self._footer()))
        return f"<table>{row(_HEADER, 'th')}{body}</table><p>{footer}</p>"

    def _footer(self) -> list[str]:
        chosen = [leaf for leaf in self.rows if leaf.axes is not None]
        numbers = sum(math.prod(leaf.shape) for leaf in self.rows)
        share = sum(math.prod(leaf.shape) for leaf in chosen) / max(numbers, 1)
        total = (
            f"{len(chosen)} of {len(self.rows)} leaves are centralized, "
            f"{share:.1%} of {numbers:,} parameters."
        )
        doubts = [
            f"? {leaf.path}: {leaf.doubt}. Settle it with "
            f"{{{leaf.path!r}: {leaf.axes}}} or other axes."
            for leaf in self.rows
            if leaf.doubt
        ]
        return [total, *doubts, *self.notes]


def describe(params: PyTree, axes: AxesSpec = fan_in) -> Report:
    """Returns a table of what `centralize_gradients(axes)` does to each leaf.

    Look at it before you train: a ``?`` marks a leaf whose layout its name and shape
    cannot settle, and the line below the table says what else it might be.

    Args:
      params: Parameters; shapes and dtypes are enough, as from `jax.eval_shape`.
      axes: As for `centralize_gradients`.

    Returns:
      A `Report`, which prints in a terminal and shows in a notebook. Its ``rows`` have
      the attributes ``path``, ``shape``, ``axes``, ``fan_in``, ``why`` and ``doubt``.

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
    rows = tuple(jax.tree.leaves(resolve(params, axes)))
    return Report(rows, tuple(notes(rows, axes)))


def removed_energy(updates: PyTree, axes: AxesSpec = fan_in) -> PyTree:
    """Returns the share of each leaf's squared norm that centralizing removes.

    For a gradient ``G`` with fan-in means ``m`` it is ``||m||^2 / ||G||^2``, with ``m``
    broadcast over the fan-in: 0 for a leaf that is already centralized, is left alone
    or is 0; 1 for one that is constant along its fan-in and would never train. Log it
    with `optax.snapshot` or `optax.monitor` placed before `centralize_gradients`.

    Args:
      updates: Gradients or updates.
      axes: As for `centralize_gradients`.

    Returns:
      A tree of the structure of `updates` of float32 scalars in [0, 1].

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
    # Squares of numbers of at most 1 do not overflow, and their sum is at least 1.
    x = x / jnp.where(largest > 0, largest, 1).astype(x.dtype)
    share = _energy(x - centralize(x, row.axes)) / jnp.maximum(_energy(x), 1)
    return jnp.minimum(share, 1).astype(jnp.float32)


def _energy(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(jnp.abs(x)))


def _cells(leaf: Leaf) -> tuple[str, ...]:
    axes, size = ("-", "-") if leaf.axes is None else (str(leaf.axes), str(leaf.fan_in))
    why = f"{leaf.why} ?" if leaf.doubt else leaf.why
    return leaf.path, str(leaf.shape), axes, size, why


def _align(row: tuple[str, ...], widths: list[int]) -> str:
    path, shape, axes, size, why = map(str.ljust, row, widths)
    return "  ".join([path, shape, axes, size.strip().rjust(widths[3]), why]).rstrip()
