"""The fan-in axes of each leaf, read from the traced model.

Here the model is traced, and the uses that the walk over it finds are told apart and
put into words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optax_gc._axes import Choice, Policy, PyTree, fan_in, path_name
from optax_gc._parts import CONSTANT, Shape, Value, of_leaf
from optax_gc._uses import Use
from optax_gc._walk import ARGUMENTS, CLOSURE, MADE, NEEDED, Walk


def traced_fan_in(
    f: Callable[..., Any], params: PyTree, *args: Any, **kwargs: Any
) -> Policy:
    """Returns a policy with the fan-in axes that are read from the traced model.

    `f` is traced, not run, and every leaf of `params` is followed to where it meets the
    data. The axes that are contracted there, in a matrix product or a convolution, are
    its fan-in. Layers, heads and experts that are stacked in one leaf each have their
    own. A leaf that is looked up, added or multiplied elementwise, stopped or never
    used is left alone. So is a leaf that the model uses in two ways, such as a tied
    embedding, until an override settles it: `optax_gc.describe` marks it with a ``?``
    and names both uses. If the program cannot be read, for example inside a Pallas
    kernel, `fan_in` guesses, with a ``?`` and the name of the primitive.

    The policy finds a leaf by its path, so trees may have gaps, as under
    `optax.masked`; a path that was not in `params` is an error.

    Args:
      f: A function of the parameters that JAX can trace: the forward pass, or the loss.
      params: Its first argument; arrays or `jax.ShapeDtypeStruct`.
      *args: Its other arguments, likewise. Others than arrays (flags, None) are held
        fixed.
      **kwargs: Its keyword arguments, likewise.

    Returns:
      A policy, for `centralize_gradients`, `optax_gc.describe`, `removed_energy` and
      the values of a mapping.

    Raises:
      TypeError: If `f` is not callable.
      ValueError: If `f` cannot be traced with these arguments; the policy raises it for
        a leaf whose path or rank is not that of a leaf of `params`.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from optax_gc import describe, traced_fan_in
      >>> params = {"table": jnp.ones((9, 4)), "proj": jnp.ones((4, 4))}
      >>> def apply(params, tokens):
      ...     return params["table"][tokens] @ params["proj"].T
      >>> axes = traced_fan_in(apply, params, jnp.zeros(5, int))
      >>> describe(params, axes)
      path   shape   fan-in axes  size  why
      -----  ------  -----------  ----  -------------------------
      proj   (4, 4)  (1,)            4  contracted in dot_general
      table  (9, 4)  -               -  looked up
      <BLANKLINE>
      1 of 2 leaves are centralized, 30.8% of 52 parameters.
    """
    if not callable(f):
        raise TypeError(
            f"`f` must be a function of the parameters, got {f!r}. Pass the model's "
            "apply function first, then the parameters and the inputs."
        )
    jaxpr = _traced(f, params, args, kwargs)
    with _without_collector():
        leaves = _named(params)
        readings = dict(
            zip(leaves, _readings(jaxpr, params, list(leaves)), strict=True)
        )

    def policy(tree: PyTree) -> PyTree:
        def choose(path: Any, leaf: Any) -> Choice:
            name, rank = path_name(path), len(_shape_of(leaf))
            if name not in readings:
                raise ValueError(_untraced(name, rank, leaves))
            if rank != len(leaves[name]):
                raise ValueError(
                    f"{name!r} was traced with shape {leaves[name]}, got "
                    f"{_shape_of(leaf)}. Trace it as it is trained."
                )
            return readings[name]

        return jax.tree_util.tree_map_with_path(choose, tree)

    return policy


def _named(params: PyTree) -> dict[str, Shape]:
    """Returns the shape of each leaf by the name of its path."""
    keyed = jax.tree_util.tree_leaves_with_path(params)
    names = [path_name(path) for path, _ in keyed]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(
            f"two leaves of `params` have the path {twice[0]!r}, so that no policy can "
            "tell them apart. Rename one of the keys."
        )
    return {name: _shape_of(leaf) for name, (_, leaf) in zip(names, keyed, strict=True)}


def _untraced(name: str, rank: int, leaves: Iterable[str]) -> str:
    """Returns what to say about a leaf that is not among those that were traced."""
    whole, _, last = name.rpartition("/")
    if not name and rank == 0:  # such as a step number
        return (
            "the parameters were traced as a tree, got one number. Under "
            '`optax.inject_hyperparams` pass static_args="axes": it calls every other '
            "function as a schedule."
        )
    if not name:
        return (
            "the parameters were traced as a tree, got one array. If they are made "
            "into one vector first, as by `optax.flatten`, their axes are lost: put "
            "`centralize_gradients` before and outside of that."
        )
    if last in ("real", "imaginary", "imag") and whole in leaves:
        return (
            f"{whole!r} was traced, got its part {last!r}. Put `centralize_gradients` "
            "before and outside of what splits complex leaves, such as "
            "`optax.contrib.split_real_and_imaginary`."
        )
    return (
        f"the axes of {name!r} were not traced. The leaves must be among "
        f"those of the `params` of `traced_fan_in`: {_some(leaves)}."
    )


def _some(names: Iterable[str]) -> str:
    first, *others = [repr(name) for name in names] or ["none"]
    return f"{first}, ... ({len(others) + 1})" if others else first


def _shape_of(leaf: Any) -> Shape:
    return tuple(getattr(leaf, "shape", ()))


def _is_leaf(node: Any) -> bool:
    return node is None or jax.tree_util.all_leaves([node])


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _traced(f: Callable[..., Any], params: PyTree, args: Any, kwargs: Any) -> Any:
    """Returns the jaxpr of `f`, with the arrays among its arguments as inputs."""
    leaves, structure = jax.tree.flatten((params, args, kwargs))
    arrays = [leaf for leaf in leaves if _is_array(leaf)]

    def of_arrays(*arrays: Any) -> Any:
        found = iter(arrays)
        given = [next(found) if _is_array(leaf) else leaf for leaf in leaves]
        params, args, kwargs = jax.tree.unflatten(structure, given)
        results = jax.tree.leaves(f(params, *args, **kwargs))
        return [result for result in results if _is_array(result)]

    try:
        return jax.make_jaxpr(of_arrays)(*arrays)
    except Exception as error:  # whatever the model raises
        shapes = ", ".join(str(_shape_of(leaf)) for leaf in jax.tree.leaves(args))
        raise ValueError(
            "`f(params, *args, **kwargs)` could not be traced "
            f"({type(error).__name__}, above). `params` must be its first argument as "
            f"it takes it, got {jax.tree.structure(params)}; the other arguments as in "
            f"training, got shapes {shapes or 'none'}."
        ) from error


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Keeps Python from looking for cycles among the many small objects of a walk.

    In a program of some thousand equations that would take as long as half of it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _readings(jaxpr: Any, params: PyTree, names: Sequence[str]) -> list[Choice]:
    """Returns what the program says about each leaf of `params`, in order."""
    leaves = jax.tree.leaves(params)
    walk = _walked(jaxpr, leaves)
    uses = [walk.used(number) for number in range(len(leaves))]
    for same in _shared(params):
        together = [use for number in same for use in uses[number]]
        for number in same:
            uses[number] = together
    guesses: list[Choice | None] = [None] * len(leaves)
    if any(use.how == "opaque" for of_leaf in uses for use in of_leaf):
        guesses = jax.tree.leaves(fan_in(params))
    return [
        _choice(uses[number], names, shape, guess, number in walk.stopped)
        for number, (shape, guess) in enumerate(zip(walk.leaves, guesses, strict=True))
    ]


def _walked(jaxpr: Any, leaves: Sequence[Any]) -> Walk:
    """Returns the walk over a program whose first inputs are the parameters.

    The data are the arrays among the arguments. If parameters meet none of them, the
    data are in the closure, or the program makes them: a grid, or random numbers.
    """
    given = len(jaxpr.jaxpr.invars) > sum(map(_is_array, leaves))
    places = ARGUMENTS if given else CLOSURE
    walk = _walk_of(jaxpr, leaves, places)
    while not walk.met_data and places < MADE:
        places += 1
        walk = _walk_of(jaxpr, leaves, places)
    return walk


def _walk_of(jaxpr: Any, leaves: Sequence[Any], places: int) -> Walk:
    shapes = list(map(_shape_of, leaves))
    walk = Walk(shapes, places)
    values = []
    for number, leaf in enumerate(leaves):
        if _is_array(leaf):
            learned = jnp.issubdtype(leaf.dtype, jnp.inexact)
            values.append(of_leaf(number, shapes[number]) if learned else CONSTANT)
    inputs = len(jaxpr.jaxpr.invars) - len(values)
    values += [Value(data=True)] * inputs
    results = walk.walk(jaxpr, values, [NEEDED] * len(jaxpr.jaxpr.outvars))
    walk.finish(results)
    return walk


def _shared(params: PyTree) -> list[list[int]]:
    """Returns the numbers of the leaves that are one variable under several paths.

    If a module holds a variable twice, as in Flax NNX, it is one object.
    """
    nodes = []

    def remember(node: Any) -> bool:
        if not isinstance(node, (dict, list, tuple)) and not _is_leaf(node):
            nodes.append(node)
        return False

    jax.tree.leaves(params, is_leaf=remember)
    found = Counter(map(id, nodes))
    twice = {node for node, times in found.items() if times > 1}
    places: dict[tuple[int, int], list[int]] = {}
    number = 0
    for node in jax.tree.leaves(params, is_leaf=lambda node: id(node) in twice):
        size = len(jax.tree.leaves(node))
        if id(node) in twice:
            for i in range(size):
                places.setdefault((id(node), i), []).append(number + i)
        number += size
    return [numbers for numbers in places.values() if len(numbers) > 1]


_WORDS = {
    "looked up": "looked up",
    "added": "added to the data",
    "multiplied": "multiplied with the data",
    "elementwise": "used elementwise",
    "joined": "joined to the data",
    "mixed": "mixed with the data",
    "statistic": "in a norm or a penalty only",
    "input": "a learned input",
    "alone": "used apart from the data",
    "updated": "added to the data",
}


def _choice(
    uses: Sequence[Use],
    names: Sequence[str],
    shape: Shape,
    guess: Choice | None,
    stopped: bool,
) -> Choice:
    """Returns what the uses of a leaf come to."""
    if not uses:
        return Choice(None, "behind stop_gradient" if stopped else "never used")
    opaque = [use for use in uses if use.how == "opaque"]
    if opaque:
        others = [use for use in uses if use.how != "opaque"]
        known = _choice(others, names, shape, guess, stopped) if others else guess
        doubt = f"{opaque[0].by} cannot be read"
        if not others:
            doubt += ", so its axes are guessed"
        return dataclasses.replace(known or Choice(None, "in doubt"), doubt=doubt)
    if all(use.derived for use in uses):
        doubt = "only derivatives are seen: trace the forward pass"
        return Choice(None, "in doubt", doubt)
    readings = {
        (_long(use.axes, shape), use.partly): use
        for use in uses
        if use.how == "contracted"
    }
    ways = {_WORDS[use.how]: use for use in uses if use.how != "contracted"}
    if not readings:
        if stopped and all(use.how == "statistic" for use in uses):
            return Choice(None, "behind stop_gradient")
        axes_left = any(use.how == "statistic" and use.partly for use in uses)
        doubt = "it is reduced along some of its axes" if axes_left else ""
        return Choice(None, ", ".join(ways), doubt, _stacked(uses))
    unsure = [use for use in readings.values() if use.partly or use.partners]
    if len(readings) == 1 and not ways and not unsure:
        return _contracted(uses, shape)
    said = [*ways, *(_in_words(use, names) for use in readings.values())]
    why = "used in two ways" if len(said) > 1 else "in doubt"
    return Choice(None, why, ", and ".join(said), _stacked(uses))


def _contracted(uses: Sequence[Use], shape: Shape) -> Choice:
    axes = max((use.axes for use in uses), key=len)
    primitives = ", ".join(dict.fromkeys(use.by for use in uses))
    if all(shape[axis] == 1 for axis in axes):
        return Choice(None, "fan-in of 1", stacked=_stacked(uses))
    return Choice(axes, f"contracted in {primitives}", "", _stacked(uses))


def _stacked(uses: Sequence[Use]) -> Shape:
    return tuple(sorted({axis for use in uses for axis in use.stacked}))


def _long(axes: Shape, shape: Shape) -> Shape:
    return tuple(axis for axis in axes if shape[axis] > 1)


def _in_words(use: Use, names: Sequence[str]) -> str:
    if use.partners:
        partners = ", ".join(repr(names[leaf]) for leaf in sorted(use.partners))
        other = f", or the data over {use.other}" if use.other else ""
        return f"contracted with {partners} over {use.axes}{other}"
    if use.partly:
        return f"contracted over {use.axes or 'no axis'} and a part of {use.partly}"
    return f"contracted over {use.axes}"
