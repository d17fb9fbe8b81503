"""Training and evaluation: one jitted step, one pass over an epoch, one run."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jax import Array

from optax_gc import centralize_gradients, describe, removed_energy
from train import checkpoint, data, report
from train.augment import augment
from train.config import Config
from train.model import CNN

RMSPROP_EPSILON = 1e-7  # Keras's, added inside the square root
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4


class Images(NamedTuple):
    """A split on the device: uint8 `(N, H, W, 3)` and int32 labels `(N,)`."""

    images: Array
    labels: Array


class Totals(NamedTuple):
    """Sums over images: their losses, and how many were told right (float32)."""

    loss: Array
    correct: Array


def optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the configured optimizer with Gradient Centralization in its place."""
    scale = {
        "rmsprop": optax.scale_by_rms(eps=RMSPROP_EPSILON, eps_in_sqrt=True),
        "sgd": optax.trace(MOMENTUM),
        "adam": optax.scale_by_adam(),
        "adamw": optax.chain(
            optax.scale_by_adam(), optax.add_decayed_weights(WEIGHT_DECAY)
        ),
    }[config.optimizer]
    parts = [centralize_gradients(), scale] if config.gc else [scale]
    if config.placement == "update":
        parts.reverse()
    return optax.chain(*parts, optax.scale_by_learning_rate(config.learning_rate))


def init_state(
    key: Array, image_shape: tuple[int, ...], tx: optax.GradientTransformation
) -> TrainState:
    """Returns freshly initialized parameters with the optimizer's state."""
    model = CNN()
    variables = jax.jit(model.init)(key, jnp.zeros((1, *image_shape)))
    return TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx)


def images_per_turn(batch_size: int) -> int:
    """Returns how many images of a batch are worked on at a time.

    On a CPU a few, so that their activations stay in cache; elsewhere the whole batch.
    """
    return min(8, batch_size) if jax.default_backend() == "cpu" else batch_size


def sum_over_images(
    turn: Callable[[Array, Array], Any], count: Array | int, per_turn: int
) -> Any:
    """Returns the sum of `turn(positions, weights)` over the turns that cover `count`.

    Args:
      turn: from int32 positions `(per_turn,)` in [0, count) and their weights, 1 for
        an image and 0 for the padding of the last turn, to a pytree of arrays.
      count: number of images; it may be traced, and what is past it costs nothing.
      per_turn: images in a turn.
    """

    def take(i: Array) -> Any:
        positions = i * per_turn + jnp.arange(per_turn)
        inside = positions < count
        return turn(jnp.where(inside, positions, 0), inside.astype(jnp.float32))

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(take, jnp.array(0))
    )
    return jax.lax.fori_loop(
        0,
        (count + per_turn - 1) // per_turn,
        lambda i, sums: jax.tree.map(jnp.add, sums, take(i)),
        zeros,
    )


def weighted_totals(logits: Array, labels: Array, weights: Array) -> Totals:
    """Returns the summed binary cross-entropy and right answers of `(B,)` logits."""
    losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32))
    correct = ((logits > 0) == (labels > 0)).astype(jnp.float32)
    return Totals(jnp.sum(weights * losses), jnp.sum(weights * correct))


def train_step(
    state: TrainState,
    split: Images,
    indices: Array,
    count: Array,
    key: Array,
    *,
    augmented: bool,
    per_turn: int,
) -> tuple[TrainState, Totals, Any]:
    """Returns the state after one step on a batch, the batch's totals, and the share
    of each gradient's energy that centralizing takes (or would take) away.

    The randomness of an image is keyed by the step and the image's position in the
    batch, so the result does not depend on how many images are worked on at a time.

    Args:
      state: parameters and optimizer state.
      split: the whole training split.
      indices: int32 `(B,)`, the batch's images; those from `count` on are padding.
      count: number of images in the batch, int32 scalar.
      key: the key of the run's steps.
      augmented: whether to flip, rotate and zoom.
      per_turn: images worked on at a time.
    """

    step_key = jax.random.fold_in(key, state.step)

    def logit(params: Any, image: Array, image_key: Array) -> Array:
        augment_key, dropout_key = jax.random.split(image_key)
        image = augment(augment_key, image) if augmented else image.astype(jnp.float32)
        return state.apply_fn(
            {"params": params},
            image[None] / 255,
            train=True,
            rngs={"dropout": dropout_key},
        )[0]

    def loss(params: Any, positions: Array, weights: Array) -> tuple[Array, Totals]:
        images, labels = (x[indices[positions]] for x in split)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, positions)
        logits = jax.vmap(logit, (None, 0, 0))(params, images, keys)
        totals = weighted_totals(logits, labels, weights)
        return totals.loss, totals

    grads, totals = sum_over_images(
        functools.partial(jax.grad(loss, has_aux=True), state.params), count, per_turn
    )
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    return state.apply_gradients(grads=grads), totals, removed_energy(grads)


def evaluate(state: TrainState, split: Images, *, per_turn: int) -> Totals:
    """Returns the totals over a whole split, without augmentation and dropout."""

    def turn(positions: Array, weights: Array) -> Totals:
        images, labels = (x[positions] for x in split)
        logits = state.apply_fn(
            {"params": state.params}, images.astype(jnp.float32) / 255
        )
        return weighted_totals(logits, labels, weights)

    return sum_over_images(turn, len(split.labels), per_turn)


def epoch_batches(
    seed: int, epoch: int, size: int, batch_size: int
) -> list[tuple[np.ndarray, int]]:
    """Returns an epoch's batches: `(batch_size,)` int32 indices and how many count.

    Every image occurs once; the last batch holds what is left, padded with zeros.
    """
    order = np.random.default_rng((seed, epoch)).permutation(size).astype(np.int32)
    steps = math.ceil(size / batch_size)
    rows = np.pad(order, (0, steps * batch_size - size)).reshape(steps, batch_size)
    counts = [min(batch_size, size - step * batch_size) for step in range(steps)]
    return list(zip(rows, counts, strict=True))


class Program(NamedTuple):
    """The two compiled functions of a run, and the seconds that compiling took."""

    train_step: Callable[..., tuple[TrainState, Totals, Any]]
    evaluate: Callable[..., Totals] | None
    compile_seconds: float


def compile_program(
    config: Config, state: TrainState, train: Images, test: Images
) -> Program:
    """Compiles the train step, and the evaluation if it is wanted, ahead of time."""
    start = time.perf_counter()
    per_turn = images_per_turn(config.batch_size)
    step = functools.partial(train_step, augmented=config.augment, per_turn=per_turn)
    indices = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    lowered = jax.jit(step, donate_argnums=0).lower(state, train, indices, count, key)
    compiled_step = lowered.compile()
    compiled_evaluate = None
    if config.evaluate:
        evaluation = functools.partial(evaluate, per_turn=per_turn)
        compiled_evaluate = jax.jit(evaluation).lower(state, test).compile()
    return Program(compiled_step, compiled_evaluate, time.perf_counter() - start)


def train_epoch(
    program: Program,
    state: TrainState,
    split: Images,
    batches: list[tuple[np.ndarray, int]],
    key: Array,
    on_step: Callable[[int, float, float], None],
) -> tuple[TrainState, float, float, Any]:
    """Takes one step a batch.

    Args:
      on_step: called after each step with the number of images so far and their mean
        loss and accuracy.

    Returns:
      The state, the epoch's loss and accuracy, and `removed_energy`, its mean over the
      steps.
    """
    loss, correct, seen = 0.0, 0.0, 0
    removed = []
    for indices, count in batches:
        state, totals, energy = program.train_step(
            state, split, indices, np.int32(count), key
        )
        loss, correct = loss + float(totals.loss), correct + float(totals.correct)
        removed.append(jax.device_get(energy))
        seen += count
        on_step(seen, loss / seen, correct / seen)
    mean_removed = jax.tree.map(lambda *shares: np.mean(shares), *removed)
    return state, loss / seen, correct / seen, mean_removed


def mean_drift(params: Any, start: Any) -> Any:
    """Returns how far the fan-in means of each leaf are from those at the start.

    The root mean square over the output units, in the units of the weights; 0 where
    nothing is centralized. GC conserves these means under SGD.
    """
    change = jax.tree.map(jnp.subtract, params, start)
    gc = centralize_gradients()
    centralized, _ = gc.update(change, gc.init(change))
    # What centralizing takes from the change is the change of the means.
    return jax.tree.map(
        lambda x, y: jnp.sqrt(jnp.mean(jnp.square(x - y))), change, centralized
    )


def by_path(tree: Any, like: Any) -> dict[str, float]:
    """Returns the scalars of `tree` at the leaves of `like` that GC centralizes."""
    rows = describe(like).rows
    values = jax.tree.leaves(jax.device_get(tree))
    return {
        row.path: float(value)
        for row, value in zip(rows, values, strict=True)
        if row.axes is not None
    }


def initial_state(
    config: Config, key: Array, image_shape: tuple[int, ...]
) -> TrainState:
    """Returns the state to start from: fresh, or with an earlier run's parameters."""
    state = init_state(key, image_shape, optimizer(config))
    if config.init_from is None:
        return state
    params = checkpoint.load_params(config.init_from / "params")
    return state.replace(params=jax.tree.map(jnp.asarray, params))


def fit(config: Config, reporter: report.Reporter) -> TrainState:
    """Trains as configured and returns the final state.

    Args:
      config: the run's configuration.
      reporter: is told of the data, the model, each step and epoch, and the end.

    Raises:
      data.DataError: if the images cannot be had.
    """
    dataset = data.load(config.dataset, config.data_dir)
    reporter.start(config, dataset)
    train = Images(*jax.device_put((dataset.train.images, dataset.train.labels)))
    test = Images(*jax.device_put((dataset.test.images, dataset.test.labels)))
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = initial_state(config, init_key, train.images.shape[1:])
    start_params = jax.device_get(state.params)
    reporter.model(CNN(), state.params, train.images.shape[1:])
    program = compile_program(config, state, train, test)
    reporter.compiled(program.compile_seconds)
    for epoch in range(1, config.epochs + 1):
        start = time.perf_counter()
        batches = epoch_batches(
            config.seed, epoch, len(train.labels), config.batch_size
        )
        state, loss, accuracy, removed = train_epoch(
            program, state, train, batches, step_key, reporter.step
        )
        seconds = time.perf_counter() - start
        reporter.epoch(
            report.Epoch(
                epoch, seconds, loss, accuracy, *evaluated(program, state, test)
            ),
            {
                "removed_energy": by_path(removed, start_params),
                "mean_drift": by_path(
                    mean_drift(state.params, start_params), start_params
                ),
            },
        )
    checkpoint.save_params(reporter.workdir / "params", state.params)
    reporter.finish()
    return state


def evaluated(
    program: Program, state: TrainState, test: Images
) -> tuple[float | None, float | None]:
    """Returns the held-out loss and accuracy, or Nones where evaluation is off."""
    if program.evaluate is None:
        return None, None
    loss, correct = program.evaluate(state, test)
    return float(loss) / len(test.labels), float(correct) / len(test.labels)
