"""A walk over the program that JAX traced, which collects the uses of its parameters.

`_parts` says what is known of each array on the way, and `_rules` what each primitive
does to it. Only public names of JAX are used, and few parameters of primitives, because
those change between versions.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jax.extend import core

from optax_gc._parts import (
    BROADCAST,
    CONSTANT,
    Atom,
    Dim,
    Part,
    Shape,
    Value,
    whole_axes,
)
from optax_gc._rules import RULES, WITHOUT_GRADIENT
from optax_gc._rules.base import Values, data, shape

_JAXPRS = (core.Jaxpr, core.ClosedJaxpr)
# What a rule may raise that reads what another version of JAX calls otherwise.
_UNREAD = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)
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
        if part.fixed or (part.inner and part.met != "looked up"):
            return self._contracted(part, (), (), "dot_general")
        if over := self._summed_over(part):
            others = tuple(a for a in part.stacked if a.axis not in self._axes(over))
            part = dataclasses.replace(part, stacked=others)
            return self._contracted(part, over, (), "sum")
        stacked = self._axes(part.stacked)
        return self._note(part, part.met or how, stacked=stacked)

    def _summed_over(self, part: Part) -> Dim:
        """Returns the axes along which a part was summed index by index."""
        lengths = [self.leaves[part.leaf][axis] for axis in self._axes(part.summed)]
        axes = zip(self._axes(part.summed), lengths, strict=True)
        return tuple(Atom(axis, n, 0, n) for axis, n in axes if n > 1)

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
            elif name in WITHOUT_GRADIENT:
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
