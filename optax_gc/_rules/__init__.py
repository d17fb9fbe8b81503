"""What each primitive of JAX does to the axes of the parameters in its operands.

`RULES` has a small function for each kind of primitive, from the `Value`s of its
operands to those of its results. It reads as few of the primitive's parameters as
possible, because those change between versions of JAX. To teach the reader a primitive,
add a function with ``@rule("its_name")``; a primitive without a rule is opaque.
"""

from optax_gc._rules import arrays, elementwise, lookups, products, programs
from optax_gc._rules.base import RULES

WRITES = frozenset({"swap", "addupdate"})
WITHOUT_GRADIENT = frozenset({"stop_gradient", *elementwise.COMPARES})

__all__ = [
    "RULES",
    "WITHOUT_GRADIENT",
    "WRITES",
    "arrays",
    "elementwise",
    "lookups",
    "products",
    "programs",
]
