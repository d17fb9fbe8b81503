"""How long the steps of gradient descent can be, with and without GC."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from optax_gc._axes import AxesSpec, PyTree, Shape, check, fan_in, notes, resolve
from optax_gc._centralize import centralize, widen

_TOLERANCE = 0.02  # relative to an eigenvalue, for the norm of its residual
_IN_A_ROW = 3  # products in a row after which the residual must be that small
_MOST = 100  # the most products for one eigenvalue
_ROUNDING = 1e-6  # relative to the largest eigenvalue: what cannot be told from 0

# Leaves, by their number in `(params, args)`.
_Leaves: TypeAlias = Mapping[int, Any]
_Product: TypeAlias = Callable[[Callable[[Any], Any], Any, Any], tuple[Any, Any]]
_Step: TypeAlias = Any  # a jitted `_step`


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """What limits the steps of gradient descent at one point; print it, or read it.

    Attributes:
      plain: The largest eigenvalue of the Hessian H of the loss.
      centralized: The largest eigenvalue of PHP on the range of P, the projection that
        centralizes; never larger than `plain`.
      products: How many Hessian-vector products each took, in this order.
      error: The bound on the relative error of the two. It is at most 0.02, unless one
        of them took 100 products.
    """

    plain: float
    centralized: float
    products: tuple[int, int]
    error: float

    @property
    def ratio(self) -> float:
        """`plain` over `centralized`, how many times as long a step may be with GC.

        It is at least 1. It is infinite if only the removed means curve upwards, and 1
        if nothing does, because then there is no limit that GC could lift.
        """
        if self.plain <= 0:
            return 1.0
        return self.plain / self.centralized if self.centralized > 0 else math.inf

    def __str__(self) -> str:
        if self.plain <= 0:
            verdict = "nothing curves upwards, so no step is too long"
        elif self.centralized <= 0:
            verdict = "no step is too long with it"
        else:
            verdict = f"steps can be {self.ratio:.2f} times as long"
        first, second = self.products
        return (
            f"sharpness {self.plain:.3g}, with GC {self.centralized:.3g}: {verdict} "
            f"({first} + {second} products, to {max(self.error, _TOLERANCE):.0%})"
        )

    __repr__ = __str__


class _Eigenvalue(NamedTuple):
    """An eigenvalue, the bound on its relative error, and the products it took."""

    value: float
    error: float
    products: int


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Everything that a trace depends on; `fixed` leaves come with their types.

    The types are there because 1, 1.0 and True are equal but are not traced alike.
    """

    loss: Callable[..., Any]
    structure: Any
    fixed: tuple[tuple[int, type, Any], ...]
    axes: tuple[tuple[int, Shape], ...]

    def value(self, varied: _Leaves, given: _Leaves) -> Any:
        """Returns the loss, with all leaves back in their places."""
        leaves = {i: leaf for i, _, leaf in self.fixed} | {**varied, **given}
        ordered = [leaves[i] for i in range(len(leaves))]
        params, args = jax.tree.unflatten(self.structure, ordered)
        return self.loss(params, *args)

    def project(self, vector: _Leaves) -> dict[int, Any]:
        """Returns a vector of the varied leaves, centralized."""
        means = {i: centralize(vector[i], axes) for i, axes in self.axes}
        return {**vector, **means}


def sharpness(
    loss: Callable[..., Any], params: PyTree, *args: Any, axes: AxesSpec = fan_in
) -> Sharpness:
    """Returns the largest eigenvalue of the loss's Hessian, without GC and with it.

    Gradient descent is stable while its learning rate is below ``2 / max eig(H)``, with
    the Hessian ``H`` of the loss, and with momentum ``b`` while it is below
    ``2 (1 + b) / max eig(H)``. With GC it moves in the range of the projection ``P``
    that centralizes, and ``PHP`` on that range takes the place of ``H``. So the ratio
    of the two eigenvalues says how many times as large the learning rate may be. By
    interlacing it is never below 1.

    The answer holds for one point and one batch. Do not use it

    - for Adam and other optimizers that rescale each weight, because it says nothing
      about their steps;
    - only at initialization, where negative curvature can hide what limits training
      soon after: look again after a few percent of the steps;
    - with a loss that draws random numbers: give dropout a fixed key;
    - if the loss is 0 up to rounding, as for a memorized batch: its curvature is
      rounding too, and sooner so in half precision.

    The eigenvalues are found by Lanczos's method, each to 2 %. On the small networks
    that we measured, it took 5 to 22 products of the Hessian with a vector, each of
    which took as long as two to four gradients. Everything runs where `params` are, and
    is sharded like them; the host draws the start vector, one leaf at a time. The
    memory is that of a gradient and six arrays of the size of `params`.

    Like `jax.jit`, it traces `loss` once for each function and set of shapes. So pass
    the same function again rather than a new lambda, and pass what changes between
    calls as an argument.

    Args:
      loss: A function ``loss(params, *args)`` that returns one real number and can be
        differentiated twice, such as the mean loss of a batch.
      params: Its first argument, a tree of arrays. Floating and complex leaves are
        varied; products are accumulated in float32 or better. All other leaves are held
        fixed.
      *args: Its other arguments, such as a batch. They are held fixed, and arguments
        other than arrays (flags, None, functions) become part of the program.
      axes: As for `centralize_gradients`.

    Returns:
      A `Sharpness`, which prints as one line. It has the attributes ``plain``,
      ``centralized``, ``ratio``, ``products`` and ``error``.

    Raises:
      TypeError: If `loss` is not callable or does not return one real number, if `axes`
        is neither a policy nor a mapping, or inside ``jax.jit``.
      ValueError: If `params` has no floating leaf, or the loss cannot be traced or
        differentiated twice, or it or its Hessian is not finite; and as
        `centralize_gradients` does at init.

    Warns:
      UserWarning: If no leaf is centralized, which makes the ratio 1, or if a pattern
        decides about none.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_gc import sharpness
      >>> def loss(params, x, y):
      ...     return jnp.mean((x @ params["kernel"] - y) ** 2) / 2
      >>> x = jnp.array([[3.0, 1.0], [1.0, 3.0]])  # (samples, features), of mean 2
      >>> params = {"kernel": jnp.zeros((2, 1))}
      >>> sharpness(loss, params, x, jnp.ones((2, 1)))
      sharpness 8, with GC 2: steps can be 4.00 times as long (2 + 1 products, to 2%)

    References:
      LeCun, Kanter and Solla, Second Order Properties of Error Surfaces: Learning Time
      and Generalization, Advances in Neural Information Processing Systems 3, 1990

      Cohen et al., `Gradient Descent on Neural Networks Typically Occurs at the Edge of
      Stability <https://arxiv.org/abs/2103.00065>`_, 2021
    """
    if not callable(loss):
        raise TypeError(
            f"`loss` must be a function of the parameters, got {loss!r}. Pass the "
            "function first, then the parameters and the batch."
        )
    check(axes)
    rows = jax.tree.leaves(resolve(params, axes))
    means = {i: row.axes for i, row in enumerate(rows) if row.axes is not None}
    problem, varied, given = _split(loss, params, args, means)
    for note in notes(rows, axes):
        warnings.warn(note, stacklevel=2)
    _check_result(problem, varied, given)
    start = _start(varied)
    step = _differentiable(problem, varied, given, start)
    multiply = functools.partial(step, varied, given)
    plain = _largest(multiply, start, False, 0.0)
    centralized = _largest(multiply, start, True, abs(plain.value))
    return Sharpness(
        # A Ritz value of PHP is a Rayleigh quotient of H, so it bounds H's from below.
        plain=max(plain.value, centralized.value),
        centralized=centralized.value,
        products=(plain.products, centralized.products),
        error=max(plain.error, centralized.error),
    )


def _split(
    loss: Callable[..., Any], params: PyTree, args: Any, axes: Mapping[int, Shape]
) -> tuple[_Problem, _Leaves, _Leaves]:
    """Returns the problem, the leaves that are varied, and the other arrays."""
    leaves, structure = jax.tree.flatten((params, args))
    arrays = {i: leaf for i, leaf in enumerate(leaves) if _is_array(leaf)}
    if any(isinstance(leaf, jax.core.Tracer) for leaf in arrays.values()):
        raise TypeError(
            "`sharpness` decides by the numbers it finds, so it must be called outside "
            "jax.jit, vmap and grad, got traced arrays. Call it between train steps."
        )
    count = len(jax.tree.leaves(params))
    varied = {
        i: leaf
        for i, leaf in arrays.items()
        if i < count and jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    if not varied:
        raise ValueError(
            "`params` must have a floating or complex array to vary, got "
            f"{jax.tree.structure(params)}. Pass the parameters, then the batch."
        )
    given = {i: leaf for i, leaf in arrays.items() if i not in varied}
    others = [(i, leaf) for i, leaf in enumerate(leaves) if i not in arrays]
    fixed = tuple((i, type(leaf), leaf) for i, leaf in others)
    return _Problem(loss, structure, fixed, tuple(axes.items())), varied, given


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _check_result(problem: _Problem, varied: _Leaves, given: _Leaves) -> None:
    """Traces the loss once, to tell its own errors from those of its derivatives."""
    try:
        result = jax.eval_shape(problem.value, varied, given)
    except Exception as error:  # whatever the model raises
        raise ValueError(
            f"`loss(params, *args)` could not be traced ({type(error).__name__}, "
            "above). Pass the arguments as you would to jax.jit(loss)."
        ) from error
    leaves = jax.tree.leaves(result)
    scalar = isinstance(result, jax.ShapeDtypeStruct) and result.shape == ()
    if not scalar or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        said = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves]
        raise TypeError(
            "`loss(params, *args)` must return one real number, got "
            f"{', '.join(said) or result}. Take the mean over the batch, and leave out "
            "anything else that it returns."
        )


def _differentiable(
    problem: _Problem, varied: _Leaves, given: _Leaves, start: _Leaves
) -> _Step:
    """Returns the first of the two ways to multiply that the loss allows.

    It is lowered here, because a `jax.custom_vjp` may be refused only then.
    """
    errors = []
    for step in _steps(problem):
        try:
            step.lower(varied, given, start, start, False)
            return step
        except Exception as error:  # whatever its rules of differentiation raise
            errors.append(error)
    raise ValueError(
        "`loss` must be differentiable twice, and one of its operations is not "
        f"({type(errors[0]).__name__}, above). Use one with a derivative: lax.scan for "
        "lax.while_loop, jax.custom_jvp around a callback or a kernel."
    ) from errors[0]


def _start(varied: _Leaves) -> dict[int, Any]:
    """Returns a random vector, the same at each call, sharded as the leaves are."""
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> Any:
        dtype = np.dtype(np.float32) if leaf.dtype.itemsize < 4 else leaf.dtype
        x: Any = rng.standard_normal(leaf.shape, np.float32)
        if dtype.kind == "c":
            x = x + 1j * rng.standard_normal(leaf.shape, np.float32)
        spread = isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
        return jax.device_put(x.astype(dtype), leaf.sharding if spread else None)

    return {i: draw(leaf) for i, leaf in varied.items()}


def _largest(
    multiply: Callable[..., Any], start: _Leaves, projected: bool, scale: float
) -> _Eigenvalue:
    """Returns the largest eigenvalue by Lanczos's three-term recurrence.

    It keeps two vectors and orthogonalizes no further. This leads to copies of
    eigenvalues that have converged, which do not harm the largest one (Paige, 1980).

    It stops once the residual has been small for three products in a row, because it
    can be small at the second eigenvalue before the first appears. On seven
    networks (perceptrons, an autoencoder, a decoder, coordinate networks; at the start
    and after 150 steps; H and PHP; five starts each) it took 10.7 products on average
    and 22 at most, and was off by 0.8 % at most. Had it stopped at the first small
    residual, after 8.5 products, it would have been off by up to 19 %.

    `scipy.sparse.linalg.eigsh` takes as many products, 9 to 19 with 8 to 12 vectors,
    but keeps these on the host, where all shards have to go for each product. It took
    1.7 times the CPU time for 10 million parameters. It also returns no bound, refuses
    H = 0 and a single parameter, and where PHP is negative on its range it returns the
    0 of the removed means.

    Args:
      multiply: A jitted step of the recurrence.
      start: Its first vector, of any length.
      projected: Whether the vectors are centralized.
      scale: What an eigenvalue is compared to before it is taken for 0, if larger than
        the recurrence's own scale.
    """
    residual, vector = start, jax.tree.map(jnp.zeros_like, start)
    alphas: list[float] = []
    betas: list[float] = []
    settled = 0
    while settled < _IN_A_ROW and len(alphas) < _MOST:
        residual, vector, numbers = multiply(residual, vector, projected)
        loss, alpha, beta = map(float, jax.device_get(numbers))
        _check_finite(loss, alpha + beta)
        alphas.append(alpha)
        betas.append(beta)
        largest, bound = _ritz(alphas, betas)
        scale = max(scale, abs(alpha), beta)
        settled = settled + 1 if bound <= _TOLERANCE * abs(largest) else 0
        if bound <= _ROUNDING * scale:  # there is nothing more to find
            break
    if abs(largest) <= _ROUNDING * scale:
        return _Eigenvalue(0.0, 0.0, len(alphas))
    return _Eigenvalue(largest, bound / abs(largest), len(alphas))


def _ritz(alphas: list[float], betas: list[float]) -> tuple[float, float]:
    """Returns the largest Ritz value and the norm of its residual."""
    from scipy.linalg import eigh_tridiagonal  # slow to import

    last = len(alphas) - 1
    values, vectors = eigh_tridiagonal(
        alphas, betas[:-1], select="i", select_range=(last, last)
    )
    return float(values[0]), betas[-1] * abs(float(vectors[-1, 0]))


def _check_finite(loss: float, product: float) -> None:
    if not math.isfinite(loss):
        raise ValueError(
            f"`loss(params, *args)` must be finite, got {loss}. Look at a point where "
            "the training is stable."
        )
    if not math.isfinite(product):
        raise ValueError(
            f"The Hessian of `loss` must be finite at `params`, got {product} from its "
            "product with a vector. Look for a root, a norm or a logarithm of 0."
        )


def _steps(problem: _Problem) -> list[_Step]:
    try:
        return _kept_steps(problem)
    except TypeError:  # not hashable
        return _new_steps(problem)


def _new_steps(problem: _Problem) -> list[_Step]:
    products = (_forward_over_reverse, _reverse_over_reverse)
    return [jax.jit(functools.partial(_step, problem, way)) for way in products]


_kept_steps = functools.lru_cache(maxsize=4)(_new_steps)


def _step(
    problem: _Problem,
    product: _Product,
    varied: _Leaves,
    given: _Leaves,
    residual: _Leaves,
    previous: _Leaves,
    projected: jax.Array,
) -> tuple[_Leaves, _Leaves, tuple[jax.Array, ...]]:
    """Returns the next residual and vector of Lanczos's recurrence, and its numbers."""

    def centralized(vector: Any) -> Any:
        new = problem.project(vector)
        return {i: jnp.where(projected, new[i], x) for i, x in vector.items()}

    def value(point: _Leaves) -> Any:
        leaves = {i: x.astype(varied[i].dtype) for i, x in point.items()}
        return widen(jnp.asarray(problem.value(leaves, given)))

    residual = centralized(residual)
    beta = jnp.sqrt(_dot(residual, residual))
    vector = _scaled(1 / jnp.where(beta > 0, beta, 1), residual)
    point = {i: widen(jnp.asarray(leaf)) for i, leaf in varied.items()}
    loss, curved = product(value, point, vector)
    new = _sum(centralized(curved), _scaled(-beta, previous))
    alpha = _dot(vector, new)
    new = _sum(new, _scaled(-alpha, vector))
    return new, vector, (loss, alpha, jnp.sqrt(_dot(new, new)))


def _gradient(f: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """Returns a function of a point to the direction of steepest ascent and `f`.

    This direction is the conjugate of what JAX calls the gradient. For a complex leaf
    it has the derivatives by the real and the imaginary part, which are varied like
    others.
    """

    def gradient(point: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(f)(point)
        return jax.tree.map(jnp.conj, grads), value

    return gradient


def _forward_over_reverse(
    f: Callable[[Any], Any], point: Any, vector: Any
) -> tuple[Any, Any]:
    _, product, value = jax.jvp(_gradient(f), (point,), (vector,), has_aux=True)
    return value, product


def _reverse_over_reverse(
    f: Callable[[Any], Any], point: Any, vector: Any
) -> tuple[Any, Any]:
    """Serves a `jax.custom_vjp` whose forward pass calls the function itself."""

    def along(point: Any) -> tuple[Any, Any]:
        grads, value = _gradient(f)(point)
        return _dot(vector, grads), value

    product, value = jax.grad(along, has_aux=True)(point)
    return value, jax.tree.map(jnp.conj, product)


def _dot(a: Any, b: Any) -> Any:
    """Returns the inner product of two vectors over the real numbers."""
    parts = [jnp.sum((jnp.conj(a[i]) * b[i]).real).astype(float) for i in a]
    return functools.reduce(jnp.add, parts)


def _scaled(factor: Any, vector: Any) -> Any:
    return {i: factor.astype(x.dtype) * x for i, x in vector.items()}


def _sum(a: Any, b: Any) -> Any:
    return {i: a[i] + b[i] for i in a}
