"""Which axes of which leaf are its fan-in, read from the traced model.

The program that JAX traces is walked once, from its inputs to its results. `_parts`
says what is known of each array on the way, `_rules` what each primitive does to it,
and here the uses that were found are told apart and put into words.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from optax_gc._axes import Choice, Policy, PyTree, fan_in, path_name
from optax_gc._parts import (
    BROADCAST,
    CONSTANT,
    Atom,
    Dim,
    Part,
    Shape,
    Value,
    of_leaf,
    whole_axes,
)
from optax_gc._rules import RULES, Values, data, shape

_JAXPRS = (core.Jaxpr, core.ClosedJaxpr)
# What a rule may raise that reads what another version of JAX calls otherwise.
_UNREAD = (LookupError, AttributeError, TypeError, ValueError)
NEEDED, FOR_ITS_VALUE = 2, 1  # with its gradient, or without


@dataclasses.dataclass(frozen=True)
class Use:
    """One way in which the program uses a leaf.

    Attributes:
      leaf: The leaf's number.
      how: "contracted", "looked up", "added", "multiplied", "opaque", "statistic"...
      axes: The axes that are contracted, wholly.
      partly: The axes of which only a part is.
      stacked: The axes along which layers, heads or experts are stacked.
      by: The primitive.
      other: The axes that are the fan-in if the leaf is no kernel in a product of
        parameters, but what the kernel is applied to.
      partners: The leaves in that product; none if there is no doubt.
      origin: The equation in which the leaf met the data.
    """

    leaf: int
    how: str
    axes: Shape = ()
    partly: Shape = ()
    stacked: Shape = ()
    by: str = ""
    other: Shape = ()
    partners: frozenset[int] = frozenset()
    origin: int = 0


class Walk:
    """A walk over a program, which collects the uses of its parameters."""

    def __init__(self, leaves: Sequence[Shape]):
        self.leaves = leaves
        self.origin = 0
        self.uses: list[Use] = []
        self.stopped: set[int] = set()
        self._dropped = 0  # uses (a bit each) that only scale the kernel itself
        self._of_leaf: dict[int, int] = {}
        self._noting = True
        self._live: dict[Any, int] = {}
        self._needed = 0  # the equation in hand
        self._known_needs: dict[tuple[int, Shape], dict[Any, int]] = {}

    def walk(self, jaxpr: Any, values: Values, live: Sequence[int]) -> list[Value]:
        """Returns the results of a (closed) jaxpr, given its arguments.

        Args:
          jaxpr: The program.
          values: What is known of its arguments.
          live: For each result whether it is `NEEDED`, `FOR_ITS_VALUE` or not (0).
        """
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        around = self._live, self._needed
        self._live = self._needs(jaxpr, live)
        known: dict[Any, Value] = dict.fromkeys(jaxpr.constvars, CONSTANT)
        known.update(zip(jaxpr.invars, values, strict=True))

        def read(var: Any) -> Value:
            return CONSTANT if isinstance(var, core.Literal) else known[var]

        for eqn in jaxpr.eqns:
            results = self._apply(eqn, [read(var) for var in eqn.invars])
            known.update(zip(eqn.outvars, results, strict=True))
        results = [read(var) for var in jaxpr.outvars]
        self._live, self._needed = around
        return results

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Notes no use within."""
        noting, self._noting = self._noting, False
        try:
            yield
        finally:
            self._noting = noting

    def finish(self, results: Values) -> None:
        """Settles what reaches the results of the program unsettled."""
        self._needed = NEEDED
        for value in results:
            for part in value.parts:
                if part.met:
                    self.settle(part)

    def used(self, leaf: int) -> list[Use]:
        """Returns the uses that say what a leaf is."""
        uses = [
            use
            for number, use in enumerate(self.uses)
            if use.leaf == leaf and not self._dropped >> number & 1
        ]
        uses = [use for use in uses if use.how != "statistic"] or uses
        # What is scaled and then summed too, as by a norm, is scaled.
        scaled = {
            use.origin for use in uses if use.how in ("multiplied", "elementwise")
        }
        uses = [use for use in uses if use.by != "sum" or use.origin not in scaled]
        # A product of parameters is no riddle if another use tells which is the kernel.
        sure = {
            use.axes for use in uses if use.how == "contracted" and not use.partners
        }
        return [
            use for use in uses if not use.partners or not sure & {use.axes, use.other}
        ]

    def liveness(self, eqn: Any) -> list[int]:
        return [self._live.get(var, 0) for var in eqn.outvars]

    def settle(self, part: Part, how: str = "") -> int:
        if part.statistic:
            left = [a for dim in part.dims for a in dim if a.axis != BROADCAST]
            return self._note(part, "statistic", partly=tuple(a.axis for a in left))
        if part.fixed or part.inner:
            return self._contracted(part, (), (), "dot_general")
        stacked = self._axes(part.stacked)
        return self._note(part, part.met or how, stacked=stacked)

    def contract(self, part: Part, contracted: Dim, batch: Dim, kind: str) -> int:
        if part.statistic:
            return self.settle(part)
        # What it was scaled by that was made from itself is its norm, and no use.
        self._dropped |= part.scaled_by & self._of_leaf.get(part.leaf, 0)
        return self._contracted(part, contracted, batch, kind)

    def _contracted(self, part: Part, atoms: Dim, batch: Dim, kind: str) -> int:
        shape = self.leaves[part.leaf]
        stacked = self._axes(part.stacked + batch)
        other: Shape = ()
        if part.fixed:
            atoms = part.fixed
        elif part.inner and not (part.adapter and atoms):
            other, atoms = self._axes(atoms), part.inner
        axes, partly = whole_axes(atoms, shape)
        return self._note(
            part, "contracted", axes=axes, partly=partly, stacked=stacked, by=kind,
            other=other, partners=frozenset() if part.adapter else part.partners,
        )  # fmt: skip

    def _axes(self, atoms: Iterable[Atom]) -> Shape:
        return tuple(sorted({atom.axis for atom in atoms}))

    def _note(self, part: Part, how: str, **details: Any) -> int:
        if not self._noting:
            return 0
        if self._needed < NEEDED:
            if self._needed == FOR_ITS_VALUE:
                self.stopped.add(part.leaf)
            return 0
        bit = 1 << len(self.uses)
        self.uses.append(Use(part.leaf, how, origin=part.origin, **details))
        self._of_leaf[part.leaf] = self._of_leaf.get(part.leaf, 0) | bit
        return bit

    def _apply(self, eqn: Any, values: Values) -> list[Value]:
        """Returns the results of an equation."""
        name = eqn.primitive.name
        self.origin += 1
        self._needed = max(self.liveness(eqn), default=0)
        if name == "stop_gradient":
            self.stopped.update(part.leaf for value in values for part in value.parts)
        try:
            results = self._results(name, eqn, values)
        except _UNREAD:
            results = self._opaque(eqn, values)
        return results if isinstance(results, list) else [results]

    def _results(self, name: str, eqn: Any, values: Values) -> Value | list[Value]:
        plain = not any(value.parts for value in values)
        if plain and name in ("scan", "while", "cond"):
            return _plain(eqn, values)
        if name in RULES:
            return RULES[name](self, eqn, values)
        if (program := _program(eqn)) is not None:
            inner = getattr(program, "jaxpr", program)
            values = [
                _refitted(value, shape(outer), shape(var))
                for value, outer, var in zip(
                    values, eqn.invars, inner.invars, strict=True
                )
            ]
            return self.walk(inner, values, self.liveness(eqn))
        if plain:
            return _plain(eqn, values)
        raise LookupError(name)

    def _opaque(self, eqn: Any, values: Values) -> list[Value]:
        """Returns data, and notes that parameters went where they are not followed."""
        uses = data(*values).uses
        for value in values:
            for part in value.parts:
                if part.kernel and part.met != "looked up":
                    uses |= self._note(part, "opaque", by=eqn.primitive.name)
                else:
                    uses |= self.settle(part)
        return [data(uses=uses)] * len(eqn.outvars)

    def _needs(self, jaxpr: Any, live: Sequence[int]) -> dict[Any, int]:
        """Returns which variables of a program are needed, with or without gradient."""
        key = id(jaxpr), tuple(live)
        if key in self._known_needs:
            return self._known_needs[key]
        needed: dict[Any, int] = {}

        def need(variables: Iterable[Any], levels: Iterable[int]) -> None:
            for var, level in zip(variables, levels, strict=False):
                if level and not isinstance(var, core.Literal):
                    needed[var] = max(needed.get(var, 0), level)

        need(jaxpr.outvars, live)
        for eqn in reversed(jaxpr.eqns):
            levels = [needed.get(var, 0) for var in eqn.outvars]
            level, name = max(levels, default=0), eqn.primitive.name
            program = _program(eqn) if level and name not in RULES else None
            if program is not None:
                inner = getattr(program, "jaxpr", program)
                within = self._needs(inner, levels)
                need(eqn.invars, (within.get(var, 0) for var in inner.invars))
            elif name == "stop_gradient":
                need(eqn.invars, [min(level, FOR_ITS_VALUE)])
            else:
                need(eqn.invars, [level] * len(eqn.invars))
        self._known_needs[key] = needed
        return needed


def _plain(eqn: Any, values: Values) -> list[Value]:
    """Returns what an equation makes of data and constants, whatever it does."""
    if any(value.data for value in values):
        return [data(*values)] * len(eqn.outvars)
    return [CONSTANT] * len(eqn.outvars)


def _program(eqn: Any) -> Any:
    """Returns the program that an equation only calls, if it is such a one."""
    programs = [value for value in eqn.params.values() if isinstance(value, _JAXPRS)]
    if len(programs) != 1:
        return None
    inner = getattr(programs[0], "jaxpr", programs[0])
    ins, outs = [
        [(outer.aval, var.aval) for outer, var in zip(*pair, strict=False)]
        for pair in ((eqn.invars, inner.invars), (eqn.outvars, inner.outvars))
    ]
    same_number = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(
        eqn.outvars
    )
    same_kind = all(
        getattr(a, "dtype", None) == getattr(b, "dtype", None)
        and len(getattr(a, "shape", ())) == len(getattr(b, "shape", ()))
        for a, b in (*ins, *outs)
    )
    return programs[0] if same_number and same_kind else None


def _refitted(value: Value, outer: Shape, inner: Shape) -> Value:
    """Returns the value within a shard, whose axes are as whole as the array's."""
    if outer == inner:
        return value

    def refit(part: Part) -> Part:
        dims = []
        for dim, n, m in zip(part.dims, outer, inner, strict=True):
            if n == m or not dim:
                dims.append(dim)
            elif len(dim) == 1:
                dims.append((dim[0]._replace(size=m, start=0),))
            else:
                raise LookupError("an axis in pieces, sharded")
        return part.with_dims(dims)

    return value.map(refit, value.same)


def traced_fan_in(
    f: Callable[..., Any], params: PyTree, *args: Any, **kwargs: Any
) -> Policy:
    """Returns a policy with the fan-in axes that the model itself says.

    `f` is traced, not run, and every leaf of `params` is followed to where it meets the
    data. What is contracted there, in a matrix product or a convolution, is its fan-in.
    Layers, heads and experts that are stacked in one leaf each keep their own. A leaf
    that is looked up, added or multiplied elementwise, stopped or never used is left
    alone. So is one that the model uses in two ways, such as a tied embedding, until
    an override settles it: `optax_gc.describe` shows it with a ``?`` and names both.
    Where the program cannot be read, inside a Pallas kernel for example, `fan_in`
    guesses, with a ``?`` and the name of the primitive.

    The policy finds a leaf by its path, so trees may have gaps, as under
    `optax.masked`; a path that was not in `params` is an error.

    Args:
      f: A function of the parameters that JAX can trace: the forward pass, or the loss.
      params: Its first argument; arrays or `jax.ShapeDtypeStruct`.
      *args: Its other arguments, likewise. What is no array is held fixed: flags, None.
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
    keyed = jax.tree_util.tree_leaves_with_path(params)
    jaxpr = _traced(f, params, args, kwargs)
    leaves = {path_name(path): _shape_of(leaf) for path, leaf in keyed}
    readings = dict(zip(leaves, _readings(jaxpr, params), strict=True))

    def policy(tree: PyTree) -> PyTree:
        def choose(path: Any, leaf: Any) -> Choice:
            name, rank = path_name(path), len(_shape_of(leaf))
            if name not in readings:
                raise ValueError(
                    f"the axes of {name!r} were not traced. The leaves must be among "
                    f"those of the `params` of `traced_fan_in`: {_some(leaves)}."
                )
            if rank != len(leaves[name]):
                raise ValueError(
                    f"{name!r} was traced with shape {leaves[name]}, got "
                    f"{_shape_of(leaf)}. Trace it as it is trained."
                )
            return readings[name]

        return jax.tree_util.tree_map_with_path(choose, tree)

    return policy


def _some(names: Iterable[str]) -> str:
    first, *others = [repr(name) for name in names] or ["none"]
    return f"{first}, ... ({len(others) + 1})" if others else first


def _shape_of(leaf: Any) -> Shape:
    return tuple(getattr(leaf, "shape", ()))


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


def _readings(jaxpr: Any, params: PyTree) -> list[Choice]:
    """Returns what the program says of each leaf of `params`, in order."""
    keyed = jax.tree_util.tree_leaves_with_path(params)
    names = [path_name(path) for path, _ in keyed]
    shapes = [_shape_of(leaf) for _, leaf in keyed]
    walk = Walk(shapes)
    values = []
    for number, (_, leaf) in enumerate(keyed):
        if _is_array(leaf):
            learned = jnp.issubdtype(leaf.dtype, jnp.inexact)
            values.append(of_leaf(number, shapes[number]) if learned else CONSTANT)
    inputs = len(jaxpr.jaxpr.invars) - len(values)
    values += [Value(data=True)] * inputs
    results = walk.walk(jaxpr, values, [NEEDED] * len(jaxpr.jaxpr.outvars))
    walk.finish(results)
    guesses = jax.tree.leaves(fan_in(params))
    return [
        _choice(walk.used(number), names, shape, guess, number in walk.stopped)
        for number, (shape, guess) in enumerate(zip(shapes, guesses, strict=True))
    ]


_WORDS = {
    "looked up": "looked up",
    "added": "added to the data",
    "multiplied": "multiplied with the data",
    "elementwise": "used elementwise",
    "joined": "joined to the data",
    "mixed": "mixed with the data",
    "statistic": "in a norm or a penalty only",
}


def _choice(
    uses: Sequence[Use],
    names: Sequence[str],
    shape: Shape,
    guess: Choice,
    stopped: bool,
) -> Choice:
    """Returns what the uses of a leaf come to."""
    if not uses:
        return Choice(None, "behind stop_gradient" if stopped else "never used")
    opaque = [use for use in uses if use.how == "opaque"]
    if opaque:
        others = [use for use in uses if use.how != "opaque"]
        known = _choice(others, names, shape, guess, stopped) if others else guess
        doubt = f"{opaque[0].by} cannot be read, so its axes are guessed"
        return dataclasses.replace(known, doubt=doubt)
    readings = {
        (_long(use.axes, shape), use.partly): use
        for use in uses
        if use.how == "contracted"
    }
    ways = {_WORDS[use.how]: use for use in uses if use.how != "contracted"}
    if not readings:
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
