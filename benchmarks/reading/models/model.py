"""One model of the zoo: a function of its parameters, and the truth of each leaf."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import jax

from optax_gc import describe
from optax_gc._axes import Leaf

# Fan-in axes from a layer's definition, counted from the last, because stacked axes
# come first (`nn.scan`, `vmap`); None is left alone.
Axes: TypeAlias = tuple[int, ...] | None
Path: TypeAlias = str
Truth: TypeAlias = dict[Path, set[Axes]]

# From a layer to the axes of its arrays, by their attributes' names.
Rule: TypeAlias = Callable[[Any], Mapping[str, Axes]]

LOOKED_UP = ELEMENTWISE = None


def always(**axes: Axes) -> Rule:
    """Returns the rule of a layer whose axes do not depend on its attributes."""
    return lambda _: axes


@dataclasses.dataclass(frozen=True)
class Model:
    """Shapes of the parameters, a function of them, and each leaf's true axes.

    Attributes:
      params: A tree of `jax.ShapeDtypeStruct`.
      apply: The forward pass, ``apply(params, *inputs)``.
      inputs: Shapes and dtypes of the rest of its arguments.
      truth: For each path of a leaf of rank 2 or more, the fan-in axes of its uses.
        More than one entry means that it is used in two ways.
    """

    params: Any
    apply: Callable[..., Any]
    inputs: tuple[Any, ...]
    truth: Mapping[Path, frozenset[Axes]]


def make(
    params: Any,
    apply: Callable[..., Any],
    inputs: Iterable[Any],
    uses: Truth,
    also: Mapping[Path, Axes] | None = None,
    unused: Iterable[Path] = (),
) -> Model:
    """Returns the model, after checking that every leaf of rank 2 or more has a truth.

    Args:
      params: Parameters, or their shapes.
      apply: The forward pass, ``apply(params, *inputs)``.
      inputs: Inputs, or their shapes.
      uses: What the layers say.
      also: Uses outside any layer, by path patterns, such as a tied embedding.
      unused: Path patterns of leaves that `apply` does not use; their gradient is 0, so
        it does not matter what a reader says.

    Raises:
      LookupError: If nothing says what a leaf is.
    """
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    rows = [row for row in describe(params, {"*": None}).rows if len(row.shape) > 1]
    truth = {}
    for row in rows:
        if any(fnmatchcase(row.path, pattern) for pattern in unused):
            continue
        found = set(uses.get(row.path, ()))
        found |= {a for p, a in (also or {}).items() if fnmatchcase(row.path, p)}
        # A fan-in of one number is left alone.
        truth[row.path] = frozenset(_canonical(a, row.shape) or None for a in found)
    missing = [
        f"{row.path} {row.shape}" for row in rows if truth.get(row.path) == set()
    ]
    if missing:
        raise LookupError(f"No layer says what these are: {', '.join(missing)}")
    return Model(params, apply, tuple(inputs), truth)


def _canonical(axes: Axes, shape: tuple[int, ...]) -> Axes:
    """Returns ascending axes from the first, without those of one number."""
    if axes is None:
        return None
    return tuple(sorted(axis % len(shape) for axis in axes if shape[axis] > 1))


def einsum_axes(equation: str, operand: int = 1) -> Axes:
    """Returns the axes of one operand that the equation contracts, from the last."""
    inputs, output = equation.replace(" ", "").split("->")
    kernel = inputs.split(",")[operand].replace("...", "")
    return tuple(i - len(kernel) for i, k in enumerate(kernel) if k not in output)


def verdict(row: Leaf, uses: frozenset[Axes]) -> str:
    """Returns how a reader's row compares with the truth.

    A leaf that is used in two ways should be in doubt, and left alone.
    """
    if len(uses) > 1:
        return "two ways" if row.doubt and row.axes is None else "two ways unsaid"
    right, sure = {_canonical(row.axes, row.shape)} == uses, not row.doubt
    if right:
        return "right" if sure else "right ?"
    return "silently wrong" if sure else "wrong ?"
