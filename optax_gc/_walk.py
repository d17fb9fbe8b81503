"""A walk over the program that JAX traced, which collects the uses of its parameters.

`_parts` says what is known about each array on the way, and `_rules` what each
primitive does to it. Only public names of JAX are used, and few parameters of
primitives, because those change between versions.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from optax_gc._parts import (
    Atom,
    Dim,
    Part,
    Product,
    Shape,
    Value,
    covered,
    merged,
    of_leaf,
)
from optax_gc._rules import RULES, WITHOUT_GRADIENT, WRITES
from optax_gc._rules.base import Values, data, is_long, nowhere, shape
from optax_gc._uses import WEAK, Use, as_one, told

_JAXPRS = (core.Jaxpr, core.ClosedJaxpr)
# What a rule may raise that reads what another version of JAX calls otherwise.
_UNREAD = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError)
NEEDED, FOR_ITS_VALUE = 2, 1  # with its gradient, or without
ARGUMENTS, CLOSURE, MADE = 0, 1, 2  # where data are: each one or in those before it
_SOURCES = ("iota", "random_bits", "threefry2x32", "rng_bit_generator")


class Walk:
    """A walk over a program, which collects the uses of its parameters."""

    def __init__(self, leaves: Sequence[Shape], places: int = 0):
        self.leaves = leaves
        self.places = places  # where the data are
        self.tables: set[int] = set()  # held by the program, and no data
        self.origin = 0
        self.uses: list[Use] = []
        self.stopped: set[int] = set()
        self.pieces = 0  # the uses (a bit each) of pieces of a leaf
        self.cells: list[Value] = []
        self.unchanged: set[int] = set()  # variables that are the same in each turn
        self._numbers: dict[Use, int] = {}
        self._noted = 0  # the uses that are none of a rehearsal
        self._dropped = 0  # uses that only scale the kernel itself
        self._unsure = 0  # uses that may be one of two readings
        self._of_leaf: dict[int, int] = {}
        # What made what a use was multiplied by, and in which variable that was.
        self._before: dict[int, tuple[int, int]] = {}
        self._atoms: dict[int, Dim] = {}  # what was contracted
        self._summed: dict[int, Dim] = {}  # what was summed over afterwards
        self._links: dict[int, set[int]] = {}  # uses that were added up
        # The axes, by leaf, of which loops around the one in hand take turns, and the
        # uses that it adds to; and the axes of whose turns a loop adds up a use.
        self._loop: tuple[dict[int, frozenset[int]], int] = {}, 0
        self._added_up: dict[int, frozenset[int]] = {}
        self._live: dict[Any, int] = {}
        self._needed = 0  # the equation in hand
        self._eqn: Any = None
        self._backward = False
        self._origins: dict[int, int] = {}
        self._known: dict[Any, tuple[list[Value], int]] = {}
        self._known_needs: dict[tuple[int, Shape], dict[Any, int]] = {}
        self._marks: dict[Any, bool] = {}

    def walk(self, jaxpr: Any, values: Values, live: Sequence[int]) -> list[Value]:
        """Returns the results of a (closed) jaxpr, given its arguments.

        A program that is called again with equal arguments is not read again.

        Args:
          jaxpr: The program.
          values: What is known about its arguments.
          live: For each result, whether it is `NEEDED`, `FOR_ITS_VALUE` or not (0).
        """
        if isinstance(jaxpr, core.ClosedJaxpr):
            held = zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True)
            self.tables.update(id(var) for var, value in held if _is_table(value))
            jaxpr = jaxpr.jaxpr
        backward = self._backward
        self._backward = self._is_derived()
        before, given = self._told_apart(values)
        key = id(jaxpr), tuple(given), tuple(live), self._backward
        if key not in self._known or any(v.cell is not None for v in values):
            noted, self._noted = self._noted, 0
            self._known[key] = self._read(jaxpr, given, live), self._noted
            self._noted |= noted
        results, noted = self._known[key]
        self._noted |= noted
        self._backward = backward
        return [_after(value, before) for value in results]

    def _told_apart(self, values: Values) -> tuple[int, list[Value]]:
        """Returns the uses that the arguments depend on, and the arguments stripped.

        Inside, only uses of leaves that are among the arguments still matter.
        """
        all_uses = relevant = 0
        for value in values:
            all_uses |= value.uses
            for part in value.parts:
                relevant |= self._of_leaf.get(part.leaf, 0)
        if not all_uses & ~relevant:
            return 0, list(values)
        return all_uses, [
            value._replace(uses=value.uses & relevant) for value in values
        ]

    def _read(self, jaxpr: Any, values: Values, live: Sequence[int]) -> list[Value]:
        around = self._live, self._needed, self._eqn
        self._live = self._needs(jaxpr, live)
        known = {var: self._constant(var) for var in jaxpr.constvars}
        known.update(zip(jaxpr.invars, values, strict=True))

        def read(var: Any) -> Value:
            if isinstance(var, core.Literal):
                return self._constant(var)
            return known[var]

        for eqn in jaxpr.eqns:
            results = self._apply(eqn, [read(var) for var in eqn.invars])
            known.update(zip(eqn.outvars, results, strict=True))
        results = [read(var) for var in jaxpr.outvars]
        self._live, self._needed, self._eqn = around
        return results

    def _constant(self, var: Any) -> Value:
        """Returns what is known about an array that the program holds."""
        long = is_long(var)
        is_data = long and self.places >= CLOSURE and id(var) not in self.tables
        if isinstance(var, core.Literal):
            is_data = is_data and not _is_table(var.val)
        return Value(data=is_data, full=long)

    def _is_derived(self) -> bool:
        """Tells whether the current equation was made by JAX's `grad`."""
        if self._backward:
            return True
        stack = getattr(getattr(self._eqn, "source_info", None), "name_stack", "")
        if stack not in self._marks:
            name = str(stack)
            self._marks[stack] = "transpose(" in name and "jvp(" in name
        return self._marks[stack]

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Notes no use within."""
        noted = self._noted
        try:
            yield
        finally:
            self._noted = noted

    @contextlib.contextmanager
    def loop(self, given: Values) -> Iterator[None]:
        """Reads an inner loop, which gets these values before its first turn."""
        around: dict[int, frozenset[int]] = {}
        before = 0
        for value in given:
            before |= value.terms | value.past
            for part in value.parts:
                turns = around.get(part.leaf, frozenset())
                around[part.leaf] = turns.union(_turns(part.stacked))
        outside, self._loop = self._loop, (around, before)
        try:
            yield
        finally:
            self._loop = outside

    def finish(self, results: Values) -> None:
        """Settles parts that reach the results of the program unsettled."""
        self._needed, self._eqn = NEEDED, None
        for value in results:
            for part in value.parts:
                (leaf,) = of_leaf(part.leaf, self.leaves[part.leaf]).parts
                if not part.met and not part.partners:
                    self._note(part, "statistic" if part.statistic else "alone")
                elif part.met == "added" and part.dims == leaf.dims:
                    self._note(part, "updated")  # by an optimizer: no use of its own
                else:
                    self.settle(part)

    @property
    def met_data(self) -> bool:
        """Tells whether a parameter met the data at all."""
        noted = [self.uses[number] for number in _bits(self._noted)]
        weak = (*WEAK, "input")
        return any(use.how not in weak and not use.partners for use in noted)

    def used(self, leaf: int) -> list[Use]:
        """Returns the uses that say what a leaf is."""
        kept = self._noted & self._of_leaf.get(leaf, 0) & ~self._dropped
        uses = told(self._joined(_bits(kept)))
        # What is scaled and then summed too, as by a norm, is scaled.
        scaled = {
            use.origin for use in uses if use.how in ("multiplied", "elementwise")
        }
        uses = [use for use in uses if use.by != "sum" or use.origin not in scaled]
        uses = [use for use in uses if not use.unsure] or uses
        uses = [self._told_by_inputs(use) for use in uses]
        # A product of parameters is no riddle if another use tells which is the kernel.
        sure = {
            use.axes for use in uses if use.how == "contracted" and not use.partners
        }
        return [
            use for use in uses if not use.partners or not sure & {use.axes, use.other}
        ]

    @functools.cached_property
    def _inputs(self) -> frozenset[int]:
        """The leaves that are added or joined to the data, as no kernel is."""
        noted = (self.uses[n] for n in _bits(self._noted & ~self._dropped))
        return frozenset(
            use.leaf
            for use in noted
            if use.how in ("added", "joined") and not (use.dead or use.derived)
        )

    def _told_by_inputs(self, use: Use) -> Use:
        """Returns a use in a product of parameters as its inputs elsewhere tell it."""
        if not use.partners:
            return use
        inputs = use.partners & self._inputs
        if use.leaf in self._inputs and not inputs:
            return Use(use.leaf, "input", origin=use.origin)
        if use.leaf not in self._inputs and inputs == use.partners:
            return use._replace(partners=frozenset(), other=())
        return use

    def _joined(self, numbers: Iterable[int]) -> list[Use]:
        """Returns uses, with those of pieces that were added up as one use."""
        found: list[Use] = []
        left = dict.fromkeys(numbers)
        while left:
            group = [next(iter(left))]
            for number in group:  # which grows by those that it is linked with
                del left[number]
                group += sorted(self._links.get(number, set()) & left.keys() - group)
            uses = [self._over_all(n) for n in sorted(group)]
            if len(uses) > 1:
                found += as_one(uses, self.leaves)
            else:
                found += self._or_wider(uses[0], self._summed.get(group[0], ()))
        return found

    def _or_wider(self, use: Use, summed: Dim) -> Iterator[Use]:
        """Yields a use, and what it is if a sum over products is one contraction.

        It may be if other kernels are contracted by hand in the same sum.
        """
        known = {*use.axes, *use.partly}
        wider = {a.axis for a in summed if a.size > 1 and a.axis not in known}
        yield use._replace(unsure=True) if wider else use
        if wider:
            axes = tuple(sorted({*use.axes, *wider}))
            stacked = tuple(axis for axis in use.stacked if axis not in wider)
            yield use._replace(axes=axes, stacked=stacked, unsure=True)

    def _over_all(self, number: int) -> Use:
        """Returns a use that also includes the axes that were summed over later.

        Those are the rest of an axis of which a piece was contracted. What was added up
        in a loop was summed over the axis that its turns take.
        """
        use, shape = self.uses[number], self.leaves[self.uses[number].leaf]
        if self._unsure >> number & 1:
            use = use._replace(unsure=True)
        turns = self._added_up.get(number, frozenset())
        if not turns and number not in self._summed:
            return use
        rest = [a for a in self._summed.get(number, ()) if a.axis in use.partly]
        atoms = (*self._atoms.get(number, ()), *rest)
        axes, partly = covered(atoms, shape)
        axes = tuple(sorted({*axes, *turns}))
        stacked = tuple(axis for axis in use.stacked if axis not in axes)
        return use._replace(
            how="contracted", axes=axes, partly=tuple(partly), stacked=stacked,
            by=use.by or "add",
        )  # fmt: skip

    def liveness(self, eqn: Any) -> list[int]:
        return [self._live.get(var, 0) for var in eqn.outvars]

    def uses_of(self, leaf: int) -> int:
        """Returns all uses (a bit each) of a leaf."""
        return self._of_leaf.get(leaf, 0)

    def contractions_of(self, leaf: int) -> int:
        numbers = _bits(self.uses_of(leaf))
        return sum(1 << n for n in numbers if self.uses[n].how == "contracted")

    def link(self, some: int, others: int) -> None:
        for a in _bits(some):
            for b in _bits(others):
                if self._are_pieces(a, b):
                    self._link(a, b)
                    if a == b:
                        self._add_up(a)

    def _link(self, a: int, b: int) -> None:
        self._links.setdefault(a, set()).add(b)
        self._links.setdefault(b, set()).add(a)

    def _add_up(self, number: int) -> None:
        """Notes that a loop adds up what a use has made in its turns.

        The loops around it do as well only if it goes on where they left off.
        """
        use, (around, before) = self.uses[number], self._loop
        turns = frozenset(use.turns)
        if not before >> number & 1:
            turns -= around.get(use.leaf, frozenset())
        self._added_up[number] = self._added_up.get(number, frozenset()) | turns

    def join(self, bits: int) -> None:
        partly = [number for number in _bits(bits) if self.uses[number].partly]
        for a, b in itertools.pairwise(partly):
            self._link(a, b)

    def widen(self, bits: int, atoms: Dim, by_hand: bool) -> None:
        for number in _bits(bits):
            use = self.uses[number]
            ways = use.stacked if by_hand else use.partly
            summed = tuple(atom for atom in atoms if atom.axis in ways)
            if summed:
                self._summed[number] = self._summed.get(number, ()) + summed

    def mix(self, product: Product, over: Dim, left: Dim | None, chosen: bool) -> None:
        for number in _bits(product.uses):
            use = self.uses[number]
            known = {*use.axes, *use.partly, *use.stacked}
            axes, _ = covered(over, self.leaves[use.leaf])
            axes = tuple(a for a in axes if a not in known)
            made = left is None or {a.axis for a in left if a.size > 1} - {
                *known,
                *axes,
            }
            batch = use.stacked if any(atom.image for atom in over) else ()
            shared = {a.axis for a in over if a.axis in (*use.axes, *batch)}
            if axes and shared:  # one sum over all of them
                self._dropped |= 1 << number
                axes = tuple(sorted({*use.axes, *axes, *shared}))
                stacked = tuple(a for a in use.stacked if a not in axes)
                how = {"axes": axes, "stacked": stacked, "by": use.by}
                self._note(product.part, "contracted", **how)
                continue
            if chosen or use.how != "contracted" or not axes or not made:
                continue
            # If weights chose among kernels first, these are contracted only now.
            stacked = tuple(
                sorted({*use.stacked, *(use.axes if product.chosen else ())})
            )
            self._note(
                product.part, "contracted", axes=axes, stacked=stacked, by=use.by,
                unsure=not product.chosen,
            )  # fmt: skip
            if product.chosen:
                self._dropped |= 1 << number
            else:
                self._unsure |= 1 << number

    def _are_pieces(self, a: int, b: int) -> bool:
        """Tells pieces of one sum from layers, one of which follows the other."""
        (before_a, by_a), (before_b, by_b) = self._before[a], self._before[b]
        follows = before_a >> b & 1 or before_b >> a & 1
        # Several kernels for one and the same input are an ensemble, and no pieces.
        ensemble = by_a == by_b != 0 and (a != b or by_a in self.unchanged)
        ensemble = ensemble and not self.uses[a].partly
        return self.uses[a].leaf == self.uses[b].leaf and not (follows or ensemble)

    def settle(self, part: Part, how: str = "") -> int:
        if part.unread and not part.statistic:
            return self._note(part, "opaque", by=part.unread)
        if part.statistic:
            left = [] if part.scale else part.at(range(len(part.dims)))  # of the data
            return self._note(part, "statistic", partly=tuple(a.axis for a in left))
        row = part.adapter and any(atom.entries == 1 for atom in part.stacked)
        row = row and part.met == "multiplied"
        if part.partners and part.met != "looked up" and not row:
            sure = part.adapter and part.met != "added"
            part = part._replace(adapter=sure)
            return self._contracted(part, (), (), "dot_general")
        atoms = [atom for dim in part.dims for atom in dim if atom.axis >= 0]
        spectrum = [atom for atom in atoms if atom.image == "spectrum"]
        if part.fixed or (spectrum and part.met == "multiplied"):
            kind = "fft" if spectrum else "dot_general"
            return self._contracted(part, (*part.fixed, *spectrum), (), kind)
        stacked, pieces, turns = self._stacked(part, part.stacked)
        unsure = False
        bits = 0
        rows = [atom for atom in atoms if atom.image in ("rows", "either")]
        if rows and not all(atom.image for atom in atoms):
            sure = all(atom.image == "rows" for atom in rows)
            bits = self._contracted(part, tuple(rows), (), "dot_general", not sure)
            if sure:
                return bits
            unsure = True
        bits |= self._note(
            part, part.met or how, stacked=stacked, pieces=pieces, unsure=unsure,
            turns=turns,
        )  # fmt: skip
        self._before.update((n, (part.scaled_by, 0)) for n in _bits(bits))
        return bits

    def contract(
        self, part: Part, contracted: Dim, batch: Dim, kind: str, by: Value, key: int
    ) -> int:
        if part.statistic or part.unread:
            return self.settle(part)
        images = tuple(atom for atom in batch if atom.mixes)
        bits = 0
        readings = list(_over(part, contracted, batch, bool(by.products)))
        for atoms in readings:
            summed = atoms + part.fixed + images
            bits |= self._contracted(part, summed, batch, kind, len(readings) > 1)
        # What it was scaled by that was made from itself is its norm, and no use.
        if not self._is_derived():
            self._dropped |= part.scaled_by & self.uses_of(part.leaf) & ~bits
        before = by.uses | part.scaled_by
        self._before.update((n, (before, key)) for n in _bits(bits))
        return bits

    def learn(self, part: Part, kernel: bool | None) -> int:
        if kernel is None:
            return self.settle(part)
        if not kernel:
            return self._note(part, "input")
        rows = tuple(a for dim in part.dims for a in dim if a.image)
        atoms = part.inner or rows + part.fixed
        axes, partly = covered(atoms, self.leaves[part.leaf])
        stacked = _axes(part.stacked)
        return self._note(
            part, "contracted", axes=axes, partly=tuple(partly), stacked=stacked,
            by="dot_general",
        )  # fmt: skip

    def _contracted(
        self, part: Part, atoms: Dim, batch: Dim, kind: str, unsure: bool = False
    ) -> int:
        shape = self.leaves[part.leaf]
        other: Shape = ()
        if part.partners and not (part.adapter and atoms):
            other, atoms = _axes(atoms), part.inner
        axes, partly = covered(atoms, shape)
        if any(atom.image for atom in atoms):  # of an axis of 1 there is nothing to say
            axes = tuple(axis for axis in axes if shape[axis] > 1) or axes
        singles = tuple(atom for atom in part.stacked if atom.axis not in axes)
        stacked, pieces, turns = self._stacked(part, singles, batch)
        known = [(axis, mask) for axis, mask in partly.items() if mask is not None]
        bits = self._note(
            part, "contracted", axes=axes, partly=tuple(partly), stacked=stacked,
            by=kind, other=other, pieces=(*pieces, *known), unsure=unsure,
            partners=frozenset() if part.adapter else part.partners, turns=turns,
        )  # fmt: skip
        self._atoms.update((number, atoms) for number in _bits(bits))
        return bits

    def _stacked(
        self, part: Part, atoms: Dim, batch: Dim = ()
    ) -> tuple[Shape, tuple[tuple[int, int], ...], Shape]:
        """Returns the axes of `atoms`, the single indices taken, and a loop's turns.

        Such pieces are none of a sum if the part only scales what another one sums up.
        """
        if part.scale:
            return _axes(atoms + batch), (), ()
        singles = [
            (atom.axis, 1 << atom.at)
            for atom in atoms + batch
            if atom.entries == 1 and atom.at is not None and not atom.image
        ]
        return _axes(atoms + batch), tuple(singles), _turns(atoms)

    def _note(self, part: Part, how: str, **details: Any) -> int:
        if self._needed == FOR_ITS_VALUE:
            self.stopped.add(part.leaf)
        derived, dead = self._is_derived(), self._needed < NEEDED
        use = Use(
            part.leaf, how, origin=part.origin, derived=derived, dead=dead, **details
        )
        number = self._numbers.setdefault(use, len(self.uses))
        bit = 1 << number
        if number == len(self.uses):
            self.uses.append(use)
            self._of_leaf[part.leaf] = self._of_leaf.get(part.leaf, 0) | bit
            self._before[number] = 0, 0
        self._noted |= bit
        if (use.pieces or use.turns) and how in ("contracted", "multiplied"):
            self.pieces |= bit
        return 0 if dead else bit

    def _apply(self, eqn: Any, values: Values) -> list[Value]:
        """Returns the results of an equation."""
        name = eqn.primitive.name
        self._eqn = eqn
        self.origin = self._origins.setdefault(id(eqn), len(self._origins) + 1)
        self._needed = max(self.liveness(eqn), default=0)
        if name in WRITES:
            self._needed = NEEDED
        if name == "stop_gradient":
            self.stopped.update(part.leaf for value in values for part in value.parts)
        try:
            results = self._results(name, eqn, values)
        except _UNREAD:
            results = self._opaque(eqn, values)
        return results if isinstance(results, list) else [results]

    def _results(self, name: str, eqn: Any, values: Values) -> Value | list[Value]:
        plain = not any(value.parts or value.cell is not None for value in values)
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
            return self.walk(program, values, self.liveness(eqn))
        if plain:
            made = self.places == MADE and name in _SOURCES
            return _plain(eqn, [Value(data=True)] if made else values)
        raise LookupError(name)

    def _opaque(self, eqn: Any, values: Values) -> list[Value]:
        """Returns what became of parameters that are not followed any further.

        Among parameters only, they are still parameters, in an unknown way; with data,
        their uses are noted.
        """
        name, parts = eqn.primitive.name, [p for value in values for p in value.parts]
        if not any(value.data for value in values):
            return [
                Value(parts=merged(nowhere(part, shape(var), name) for part in parts))
                for var in eqn.outvars
            ]
        uses = data(*values).uses
        for part in parts:
            if part.kernel and part.met not in ("looked up", "added"):
                uses |= self._note(part, "opaque", by=part.unread or name)
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
            name = eqn.primitive.name
            if _writes(eqn):  # what is written may be read wherever it is kept
                levels, level = [NEEDED for _ in eqn.outvars], NEEDED
            else:
                levels = [needed.get(var, 0) for var in eqn.outvars]
                level = max(levels, default=0)
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


def _is_table(value: Any) -> bool:
    """Tells whether integers are a fixed table of all places, rather than tokens."""
    if not jnp.issubdtype(value.dtype, jnp.integer):
        return bool(value.dtype == bool)
    places = np.unique(np.asarray(value))
    return bool(np.array_equal(places, np.arange(places.size)))


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield (low := mask & -mask).bit_length() - 1
        mask ^= low


def _axes(atoms: Iterable[Atom]) -> Shape:
    return tuple(sorted({axis for atom in atoms for axis in atom.axes}))


def _turns(atoms: Dim) -> Shape:
    """Returns the axes of which the turns of a loop take one index each."""
    return _axes(atom for atom in atoms if atom.at is None and not atom.image)


def _after(value: Value, uses: int) -> Value:
    """Returns a result, which also depends on `uses` if it is data."""
    if not (uses and value.data):
        return value
    return value._replace(uses=value.uses | uses)


def _writes(eqn: Any) -> bool:
    """Tells whether an equation changes a mutable array, itself or within."""
    return eqn.primitive.name in WRITES or any(
        type(getattr(var, "aval", None)).__name__ == "AbstractRef" for var in eqn.invars
    )


def _over(part: Part, contracted: Dim, batch: Dim, queries: bool) -> Iterator[Dim]:
    """Yields the axes that a contraction with the data may be over.

    Usually those are the axes of the data. If the other axes are only images, of a
    constant in the place of inputs, the constant may be the input: a table of
    positions. It certainly is if the data are `queries`, which a kernel has made.
    """
    atoms = [atom for dim in part.dims for atom in dim if atom.axis >= 0]
    free = [atom for atom in atoms if atom not in (*contracted, *batch)]
    rows = tuple(atom for atom in free if atom.image in ("rows", "either"))
    inputs = bool(rows) and all(atom.image for atom in free)
    if not (inputs and queries) or any(atom.image == "either" for atom in rows):
        yield contracted
    if inputs and not any(atom.image for atom in contracted):
        yield rows


def _plain(eqn: Any, values: Values) -> list[Value]:
    """Returns what an equation makes of data and constants, whatever it does."""
    if any(value.data for value in values):
        return [data(*values)] * len(eqn.outvars)
    return [Value(full=is_long(var)) for var in eqn.outvars]


def _program(eqn: Any) -> Any:
    """Returns the program that an equation merely calls, if it does nothing else."""
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
