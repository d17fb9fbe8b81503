"""The fan-in axes of each leaf: the policies, and how they are resolved.

Only paths, shapes and dtypes are read, so everything here runs at trace time and works
on arrays, tracers and ``jax.ShapeDtypeStruct`` alike.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import combinations, compress
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey, keystr, tree_map_with_path

PyTree: TypeAlias = Any
KeyPath: TypeAlias = tuple[Any, ...]
Shape: TypeAlias = tuple[int, ...]
Names: TypeAlias = tuple[str, ...]
Axes: TypeAlias = int | Sequence[int] | None
Policy: TypeAlias = Callable[[PyTree], PyTree]
AxesSpec: TypeAlias = Policy | Mapping[str, Policy | Axes]

# Elementwise parameters and lookup tables: their gradients have no fan-in.
_NO_FAN_IN = ("bias", "scale", "offset", "embedding", "embeddings", "embed")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The fan-in axes of one leaf, the reason for them, and the doubt that remains.

    `stacked` axes are neither inputs nor outputs: they stack layers, heads or experts.
    """

    axes: Shape | None
    why: str
    doubt: str = ""
    stacked: Shape = ()


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One row of `describe`: what centralizing does to one leaf, and why.

    Attributes:
      path: The leaf's keys joined by ``/``; patterns of an override are matched to it.
      shape: The leaf's shape.
      axes: The axes averaged over, ascending; None if the leaf is left alone.
      fan_in: How many numbers each mean is taken over; None if left alone.
      why: The rule that decided.
      doubt: What else the leaf might be; empty if the rule is sure.
      outputs: The axes of the outputs, ascending; none if left alone.
      stacked: The other axes, which stack layers, heads or experts, each with its own
        fan-in; none if left alone.
      removed: The share of the energy of its update that centralizing removes, in
        [0, 1]; None if no updates were given, or if it is left alone.
    """

    path: str
    shape: Shape
    axes: tuple[int, ...] | None
    fan_in: int | None
    why: str
    doubt: str
    outputs: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    removed: float | None = None

    @property
    def chance(self) -> float | None:
        """The share of noise that centralizing removes, 1 / fan-in."""
        return None if self.fan_in is None else 1 / self.fan_in


def fan_in(tree: PyTree) -> PyTree:
    """Returns the fan-in axes of every leaf, guessed from its name, shape and bias.

    The rules, in order:

    1. A leaf that is neither floating nor complex, or of rank 0 or 1, is left alone.
    2. A leaf named ``b``, or with a word of its name ending in ``bias``, ``scale``,
       ``offset``, ``embed``, ``embedding`` or ``embeddings``, is left alone, whatever
       its rank. So is a leaf with the shape of its sibling bias, which is a norm's
       scale.
    3. A sibling ``bias`` (or ``b``) reveals the layout ``(*batch, *inputs, *outputs)``
       through its own shape, ``(*batch, *outputs)``: a kernel ``(16, 4, 4)`` with a
       bias ``(4, 4)`` has fan-in axis 0; ``(3, 8, 8)`` with ``(3, 8)`` is a stack of
       three layers with fan-in axis 1.
    4. Without a bias, attention in Flax's layout is recognized by name, after any
       stacked axes: ``query``, ``key``, ``value`` are ``(inputs, heads, features)``
       and ``out`` is ``(heads, features, outputs)``. So is a leaf named ``depthwise``,
       ``(*window, channels, multiplier)``, whose fan-in is the window.
    5. Otherwise the fan-in is all axes but the last.
    6. A leaf with a fan-in of 1 is left alone, because its centralized gradient is
       always 0.

    A leaf whose name has the word ``weight`` (Equinox, PyTorch) is read in the layout
    ``(*batch, outputs, *inputs)`` by rules 3 and 5. Without a bias, inside a module
    whose name contains ``emb`` or ``norm``, it is not a matrix and is left alone.

    This is a guess: a square kernel that is stored as ``(outputs, inputs)`` looks like
    any other. `traced_fan_in` reads the axes from the model instead. If shapes and
    names leave a doubt, `describe` says so, as it does for a list of leaves without
    names, such as Keras's. Shapes are those that the optimizer sees; inside
    ``jax.shard_map`` they are those of one shard.

    Args:
      tree: Parameters, gradients or updates; shapes and dtypes are enough.

    Returns:
      A tree of the structure of `tree`; each leaf has ``axes``, ``why`` and ``doubt``.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import fan_in
      >>> query = {"kernel": jnp.ones((16, 4, 4)), "bias": jnp.ones((4, 4))}
      >>> fan_in(query)["kernel"].axes
      (0,)
    """
    keyed = jax.tree_util.tree_leaves_with_path(tree)
    shapes = {_names(path): _shape(leaf) for path, leaf in keyed}
    return tree_map_with_path(
        lambda path, leaf: _choose(_names(path), _shape(leaf), shapes), tree
    )


def all_but_last(tree: PyTree) -> PyTree:
    """Returns all axes but the last for every leaf of rank 2 or more.

    This is the paper's rule for kernels ``(kh, kw, in, out)`` and ``(in, out)``. It
    ignores names: embeddings, attention and a fan-in of 1 (whose gradient becomes 0)
    are treated alike. Use `fan_in` unless that is what you want.

    Args:
      tree: Parameters, gradients or updates; shapes are enough.

    Returns:
      A tree of the structure of `tree`, with the axes and the reason at each leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import all_but_last
      >>> all_but_last(jnp.ones((3, 3, 16, 32))).axes
      (0, 1, 2)

    References:
      Yong et al., `Gradient Centralization <https://arxiv.org/abs/2004.01461>`_, 2020
    """
    return _by_rank(tree, "all but last", lambda rank: range(rank - 1))


def all_but_first(tree: PyTree) -> PyTree:
    """Returns all axes but the first for every leaf of rank 2 or more.

    This is the paper's rule for weights ``(out, in, kh, kw)`` and ``(out, in)``, the
    layout of PyTorch and Equinox. It ignores names; see `all_but_last`.

    Args:
      tree: Parameters, gradients or updates; shapes are enough.

    Returns:
      A tree of the structure of `tree`, with the axes and the reason at each leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import all_but_first
      >>> all_but_first(jnp.ones((32, 16, 3, 3))).axes
      (1, 2, 3)
    """
    return _by_rank(tree, "all but first", lambda rank: range(1, rank))


def check(spec: Any) -> None:
    """Raises a `TypeError`, with what to write instead, unless it is an `AxesSpec`."""
    if callable(spec) or isinstance(spec, Mapping):
        return
    rule = (
        "`axes` must be a policy (fan_in, traced_fan_in(...), all_but_last, "
        "all_but_first or your own function) or a mapping of path patterns to axes, "
    )
    if isinstance(spec, Choice):  # from a step number, if it was taken for a schedule
        raise TypeError(
            f"{rule}got a policy's result. Under `optax.inject_hyperparams` pass "
            'static_args="axes": it calls every other function as a schedule.'
        )
    hint = ""
    if isinstance(spec, int | Sequence) and not isinstance(spec, str):
        hint = f" For the same axes of every kernel write {{'*kernel': {spec!r}}}."
    raise TypeError(f"{rule}got {spec!r}.{hint}")


def resolve(tree: PyTree, spec: AxesSpec) -> PyTree:
    """Returns a tree of the structure of `tree`, with `spec`'s choice at each leaf."""
    check(spec)
    policy = _overrides(spec) if isinstance(spec, Mapping) else spec
    answer = _ask(policy, tree)
    try:
        choices = jax.tree.map(lambda _, axes: _as_choice(axes), tree, answer)
    except ValueError as error:
        raise ValueError(
            "A policy must return a tree of the structure of its argument, with axes "
            f"or None at each leaf. {error}"
        ) from error
    return tree_map_with_path(_leaf, tree, choices)


def _ask(policy: Policy, tree: PyTree) -> PyTree:
    """Returns a policy's result for a tree; an error says if the tree was changed."""
    try:
        return policy(tree)
    except ValueError as error:
        if wrapper := _wrapper(tree):
            raise ValueError(
                f"{error} The tree was changed by `{wrapper}`: centralize before it, "
                f"optax.chain(centralize_gradients(axes), {wrapper}(...))."
            ) from error
        raise


def _wrapper(tree: PyTree) -> str:
    """Returns the Optax transformation that has made such a tree, if any."""
    keyed = jax.tree_util.tree_leaves_with_path(tree)
    if [path for path, _ in keyed] == [()] and len(_shape(keyed[0][1])) == 1:
        return "optax.flatten"
    halves = (GetAttrKey("real"), GetAttrKey("imaginary"))
    if any(path and path[-1] in halves for path, _ in keyed):
        return "optax.contrib.split_real_and_imaginary"
    return ""


def notes(leaves: Sequence[Leaf], spec: AxesSpec) -> list[str]:
    """Returns notes on what has no effect: idle patterns, no leaf centralized."""
    if not leaves:  # `optax.tree.map_params` looks at the state of an empty tree
        return []
    patterns = spec if isinstance(spec, Mapping) else {}
    deciding = {
        next((pattern for pattern in patterns if fnmatchcase(leaf.path, pattern)), "")
        for leaf in leaves
    }
    found = [
        f"The pattern {pattern!r} decides on no leaf: none matches it, or an earlier "
        "pattern comes first. Compare it with the paths that `describe` prints."
        for pattern in patterns
        if pattern not in deciding
    ]
    if all(leaf.axes is None for leaf in leaves):
        found.append(
            f"None of the {len(leaves)} leaves is centralized, so this does nothing. "
            "`describe` says why; give the axes of a leaf by its path."
        )
    return found


def normalize(axes: Iterable[int] | int, shape: Shape, place: str) -> Shape:
    """Returns `axes` as ascending non-negative ints; errors end with `place`."""
    listed = [*axes] if isinstance(axes, Iterable) else [axes]
    try:
        if any(isinstance(axis, bool) for axis in listed):
            raise TypeError("a bool is no axis")
        given = [*map(operator.index, listed)]
    except TypeError as error:
        raise TypeError(f"`axes` must be ints, got {axes!r} for {place}") from error
    rank = len(shape)
    if not all(-rank <= axis < rank for axis in given):
        rule = f"lie in [{-rank}, {rank})"
    elif not given or len({axis % rank for axis in given}) < len(given):
        rule = "name at least one axis, and each once"
    else:
        return tuple(sorted(axis % rank for axis in given))
    raise ValueError(f"`axes` must {rule}, got {axes!r} for {place}")


def _as_choice(axes: Any) -> Choice:
    return axes if isinstance(axes, Choice) else Choice(axes, "given")


def _leaf(path: KeyPath, leaf: Any, choice: Choice) -> Leaf:
    shape, dtype = _shape(leaf), getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        choice = Choice(None, f"not floating: {dtype or type(leaf).__name__}")
    elif 0 in shape:
        choice = Choice(None, "empty")
    if choice.axes is None:
        return Leaf(path_name(path), shape, None, None, choice.why, choice.doubt)
    place = f"{path_name(path)!r} of shape {shape}. Use None to leave a leaf alone."
    axes = normalize(choice.axes, shape, place)
    size = math.prod(shape[axis] for axis in axes)
    doubt = choice.doubt or ("a fan-in of 1 makes its gradient 0" if size == 1 else "")
    stacked = tuple(axis for axis in choice.stacked if axis not in axes)
    outputs = tuple(a for a in range(len(shape)) if a not in (*axes, *stacked))
    return Leaf(path_name(path), shape, axes, size, choice.why, doubt, outputs, stacked)


def _overrides(patterns: Mapping[str, Policy | Axes]) -> Policy:
    """Returns the policy in which the first pattern that matches a path decides."""
    globs = [*patterns, "*"]
    policies = [*map(_as_policy, patterns.values()), fan_in]

    def policy(tree: PyTree) -> PyTree:
        # Each policy gets the whole tree, where it sees the siblings of a leaf.
        answers = [ask(tree) for ask in policies]
        return tree_map_with_path(choose, tree, *answers)

    def choose(path: KeyPath, _: Any, *answers: Any) -> Any:
        matches = (fnmatchcase(path_name(path), glob) for glob in globs)
        return next(compress(answers, matches))

    return policy


def _as_policy(value: Policy | Axes) -> Policy:
    if callable(value):
        return value
    return lambda tree: jax.tree.map(lambda _: value, tree)


def _by_rank(tree: PyTree, why: str, axes: Callable[[int], Iterable[int]]) -> PyTree:
    def choose(leaf: Any) -> Choice:
        rank = len(_shape(leaf))
        if rank < 2:
            return Choice(None, f"rank {rank}")
        return Choice(tuple(axes(rank)), why)

    return jax.tree.map(choose, tree)


def _choose(names: Names, shape: Shape, shapes: Mapping[Names, Shape]) -> Choice:
    """Returns the choice by the rules of `fan_in` for the leaf called `names`."""
    parents, name = names[:-1], names[-1] if names else ""
    if len(shape) < 2:
        return Choice(None, f"rank {len(shape)}")
    if name == "b" or any(word.endswith(_NO_FAN_IN) for word in name.split("_")):
        return Choice(None, f"named {name!r}")
    bias = shapes.get((*parents, "bias"), shapes.get((*parents, "b"), ()))
    if bias == shape:
        return Choice(None, "elementwise, like its bias")
    choice = _by_bias(name, shape, bias) or _by_name(names, shape, shapes, bias)
    if choice.axes and math.prod(shape[axis] for axis in choice.axes) == 1:
        return Choice(None, "fan-in of 1", choice.doubt)
    return choice


def _by_bias(name: str, shape: Shape, bias: Shape) -> Choice | None:
    readings = _readings(shape, bias, _outputs_first(name))
    if not readings:
        return None
    others = " or ".join(map(str, readings[1:]))
    doubt = f"its bias also fits {others}" if others else ""
    axes = readings[0]
    before = axes[0] - _outputs_first(name)  # what the kernel and its bias share
    stacked = tuple(range(before)) if shape[:before] == bias[:before] else ()
    return Choice(axes, f"bias {bias}", doubt, stacked)


def _outputs_first(name: str) -> bool:
    return "weight" in name.split("_")


def _readings(shape: Shape, bias: Shape, outputs_first: bool) -> list[Shape]:
    """Returns the fan-in axes that a bias allows, likeliest first.

    The first layout that fits at all decides: the one that the name implies, then
    Flax's, then the bias's sizes on any axes (transposed convolutions, or `nn.scan`
    along an axis other than the first).
    """
    n, m = len(shape), len(bias)
    if not 0 < m < n:
        return []
    if outputs_first:  # (*batch, outputs, *inputs), bias (*batch, outputs, 1, 1)
        for k in range(1, m + 1):
            if shape[:k] == bias[:k] and set(bias[k:]) <= {1}:
                return [tuple(range(k, n))]
    # (*batch, *inputs, *outputs), bias (*batch, *outputs)
    fits = [k for k in range(m) if shape[:k] + shape[n - m + k :] == bias]
    if fits:
        return [tuple(range(k, n - m + k)) for k in fits]
    return [
        axes
        for axes in combinations(range(n), n - m)
        if sorted([*bias, *(shape[axis] for axis in axes)]) == sorted(shape)
    ]


def _by_name(
    names: Names, shape: Shape, shapes: Mapping[Names, Shape], bias: Shape
) -> Choice:
    parent, name = ("", "", *names)[-2:]
    rank, outputs_first = len(shape), _outputs_first(name)
    if outputs_first and any(word in parent.lower() for word in ("emb", "norm")):
        return Choice(None, f"named {parent!r}")
    if rank > 2 and not bias and _is_attention(names, shapes):
        inputs = 2 if parent == "out" else 1
        axes = tuple(range(rank - 3, rank - 3 + inputs))
        doubt = "others, unless layers are stacked along axis 0" if rank > 3 else ""
        stacked = tuple(range(rank - 3))
        return Choice(axes, f"attention {parent!r}", doubt, stacked)
    if rank > 2 and "depthwise" in f"{parent}/{name}".lower():
        return Choice(tuple(range(rank - 2)), "named depthwise")
    axes = tuple(range(1, rank) if outputs_first else range(rank - 1))
    why = "all but first" if outputs_first else "all but last"
    if name.endswith("recurrent_kernel") or (*names[:-1], "recurrent_kernel") in shapes:
        return Choice(axes, "recurrent")
    if bias:
        return Choice(axes, why, f"its bias {bias} fits none of its axes")
    if name.isdigit():
        return Choice(axes, why, "its name tells nothing; trace the model")
    if rank > 3 and shape[-1] == 1 and not outputs_first:
        return Choice(axes, why, f"{axes[:-1]} if depthwise")
    window = shape[2:] if outputs_first else shape[:-2]
    if rank == 2 or (rank > 3 and len(set(window)) == 1):  # a matrix, a convolution
        return Choice(axes, why)
    doubt = f"{axes[1:]} if layers are stacked"
    if rank == 3 and not outputs_first:
        doubt += ", (0,) if a DenseGeneral"
    return Choice(axes, why, doubt)


def _is_attention(names: Names, shapes: Mapping[Names, Shape]) -> bool:
    """Tells whether this is Flax's attention; `out` alone is too common a name."""
    *_, parent, name = ("", "", *names)
    beside_query = (*names[:-2], "query", name) in shapes
    return parent in ("query", "key", "value") or (parent == "out" and beside_query)


def _names(path: KeyPath) -> Names:
    """Returns the keys of `path`, without the `value` of an NNX variable or a box."""
    if len(path) > 1 and path[-1] == GetAttrKey("value"):
        path = path[:-1]
    return tuple(w for key in path for w in keystr((key,), simple=True).split("/"))


def path_name(path: KeyPath) -> str:
    return "/".join(_names(path))


def _shape(leaf: Any) -> Shape:
    return tuple(getattr(leaf, "shape", ()))
