"""Rules for inner programs: branches and loops."""

from typing import Any

from optax_gc._parts import (
    Part,
    UnreadableError,
    Value,
    repeated,
)
from optax_gc._rules.base import (
    Reader,
    Values,
    data,
    joined,
    met,
    rule,
    shape,
    without,
)


@rule("stop_gradient")
def _stop_gradient(reader: Reader, eqn: Any, values: Values) -> Value:
    (value,), rank = values, len(shape(eqn.outvars[0]))
    whole = any(all(map(part.owns, range(rank))) for part in value.parts)
    full = value.full or (whole and rank > 1 and not value.data)
    return value._replace(parts=(), products=(), full=full)


@rule("cond")
def _cond(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    index, *operands = values
    live = reader.liveness(eqn)
    branches = [reader.walk(b, operands, live) for b in eqn.params["branches"]]
    results = [joined(reader, same) for same in zip(*branches, strict=True)]
    if not index.data:
        return results
    return [
        _chosen(reader, result, index, len(shape(var)))
        for result, var in zip(results, eqn.outvars, strict=True)
    ]


def _chosen(reader: Reader, value: Value, index: Value, rank: int) -> Value:
    """Returns what data has chosen among kernels, which is still a kernel."""
    choice = index._replace(parts=(), same=frozenset(range(rank)))
    parts = value.map(lambda part: met(reader, part, "multiplied", [choice]))
    return parts._replace(data=True, uses=data(value, index).uses)


@rule("while")
def _while(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    before, count = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    consts, carry = values[before : before + count], values[before + count :]
    body = eqn.params["body_jaxpr"]
    with reader.loop([*consts, *carry]):
        carry = _steady(reader, eqn, consts, carry, [])
        results = reader.walk(body, [*consts, *carry], _all(reader, eqn))
    return [joined(reader, pair) for pair in zip(carry, results, strict=True)]


@rule("scan")
def _scan(reader: Reader, eqn: Any, values: Values) -> list[Value]:
    body = eqn.params["jaxpr"]
    inner = getattr(body, "jaxpr", body)
    # Outside, what is scanned over has one axis more than inside.
    xs = sum(
        len(shape(outer)) != len(shape(var))
        for outer, var in zip(eqn.invars, inner.invars, strict=True)
    )
    ys = sum(
        len(shape(outer)) != len(shape(var))
        for outer, var in zip(eqn.outvars, inner.outvars, strict=True)
    )
    carried = len(eqn.outvars) - ys
    fixed = len(values) - carried - xs
    consts, carry = list(values[:fixed]), list(values[fixed : fixed + carried])
    scanned = [v.map(lambda part: _one_turn(part)) for v in values[fixed + carried :]]
    with reader.loop([*consts, *carry]):
        carry = _steady(reader, eqn, consts, carry, scanned)
        results = reader.walk(body, [*consts, *carry, *scanned], _all(reader, eqn))
    after = [joined(reader, p) for p in zip(carry, results[:carried], strict=True)]
    stacks = [
        _stacked_again(value, shape(var)[0])
        for value, var in zip(results[carried:], eqn.outvars[carried:], strict=True)
    ]
    return [*after, *stacks]


def _one_turn(part: Part) -> Part:
    """Returns what a turn of a scan gets: one index, a different one each time."""
    one = without(part, [0])
    taken = len(one.stacked) - len(part.stacked)
    turns = tuple(atom._replace(at=None) for atom in one.stacked[-taken:] if taken)
    return one._replace(stacked=part.stacked + turns)


def _stacked_again(value: Value, length: int) -> Value:
    """Returns what a scan has put in a row; a layer's axis is the last that fell."""

    def stack(part: Part) -> Part:
        layers = part.stacked[-1:]
        if not layers or layers[0].size != length:
            return part.with_dims([repeated(length), *part.dims])
        layers = (layers[0]._replace(at=0),)
        dims, others = (layers, *part.dims), part.stacked[:-1]
        return part._replace(dims=dims, stacked=others)

    return value.map(stack)


def _all(reader: Reader, eqn: Any) -> list[int]:
    """Whatever a loop's next turn needs is as necessary as its results."""
    return [max(reader.liveness(eqn), default=0)] * len(eqn.outvars)


def _earlier(value: Value) -> Value:
    """Returns what the next turn of a loop gets."""
    if not value.terms:
        return value
    return value._replace(terms=0, past=value.terms | value.past)


def _steady(
    reader: Reader, eqn: Any, consts: Values, carry: Values, scanned: Values
) -> list[Value]:
    """Returns what is true of a loop's carry in each of its turns."""
    start, carry = carry, [_earlier(value) for value in carry]
    body = eqn.params["body_jaxpr" if eqn.primitive.name == "while" else "jaxpr"]
    inner, live = getattr(body, "jaxpr", body), _all(reader, eqn)
    reader.unchanged.update(map(id, inner.invars[: len(consts)]))
    with reader.rehearsal():
        for _ in range(len(carry) + 8):
            after = reader.walk(body, [*consts, *carry, *scanned], live)[: len(carry)]
            after = [_earlier(value) for value in after]
            joint = [joined(reader, p) for p in zip(carry, after, strict=True)]
            if joint == carry:
                break
            carry = joint
        else:
            raise UnreadableError
    # Now what was joined in rehearsal is noted.
    return [joined(reader, pair) for pair in zip(start, carry, strict=True)]
