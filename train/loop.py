"""Training and evaluation: one jitted step, one pass over an epoch, one run."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from optax_gc import centralize_gradients, describe, removed_energy
from train import checkpoint, data, processes, report
from train.augment import augment
from train.checkpoint import Progress
from train.command import Failure, Interrupted, Stop, UsageError
from train.config import Config
from train.model import CNN

RMSPROP_EPSILON = 1e-7  # Keras's, added inside the square root
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4


class Diverged(Failure):
    """A loss or parameters that are no longer finite."""


class Batch(NamedTuple):
    """Images that share a step, spread over the devices along the first axis.

    uint8 `(B, H, W, C)`, int32 labels `(B,)`, and each image's int32 position `(B,)`
    in the batch. Positions past the batch's count are padding. They are dealt out to
    the devices in turn, so that every device has its share of a short batch.
    """

    images: Array | np.ndarray
    labels: Array | np.ndarray
    positions: Array | np.ndarray


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
    key: Array,
    image_shape: tuple[int, ...],
    tx: optax.GradientTransformation,
    classes: int = 2,
) -> TrainState:
    """Returns freshly initialized parameters with the optimizer's state."""
    model = CNN(classes)
    variables = jax.jit(model.init)(key, jnp.zeros((1, *image_shape)))
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx)
    return state.replace(step=jnp.zeros((), jnp.int32))


def all_devices() -> Mesh:
    """Returns the mesh of all devices, over which batches are split."""
    return jax.make_mesh((jax.device_count(),), ("batch",))


def images_per_turn(batch_size: int) -> int:
    """Returns how many images a device works on at a time.

    On a CPU a few, so that their activations stay in cache; elsewhere its whole share.
    """
    share = math.ceil(batch_size / jax.device_count())
    return min(8, share) if jax.default_backend() == "cpu" else share


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
    """Returns the summed cross-entropy and right answers.

    Binary for logits `(B,)`, of a softmax for logits `(B, classes)`.
    """
    if logits.ndim == 1:
        losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32))
        correct = (logits > 0) == (labels > 0)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.argmax(logits, -1) == labels
    correct = correct.astype(jnp.float32)
    return Totals(jnp.sum(weights * losses), jnp.sum(weights * correct))


def on_each_device(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function(x, batch)` of each device's share of a batch, summed over them.

    `x` is the same on all devices, and so is the sum.
    """

    def summed(x: Any, batch: Batch) -> Any:
        return jax.lax.psum(function(x, batch), "batch")

    # Unchecked, because the zeros that sums start from are the same on all devices.
    return jax.shard_map(
        summed, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=False
    )


def train_step(
    state: TrainState,
    batch: Batch,
    count: Array,
    key: Array,
    *,
    mesh: Mesh,
    augmented: bool,
    per_turn: int,
) -> tuple[TrainState, Totals, Any]:
    """Returns the state after one step on a batch, the batch's totals, and the share
    of each gradient's energy that centralizing takes (or would take) away.

    The randomness of an image is keyed by the step and the image's position in the
    batch, so the result does not depend on the number of devices or of images in a
    turn.

    Args:
      state: parameters and optimizer state.
      batch: the batch, padded to a multiple of the devices.
      count: number of images in the batch, int32 scalar.
      key: the key of the run's steps.
      mesh: the devices.
      augmented: whether to flip, rotate and zoom.
      per_turn: images that a device works on at a time.
    """

    def logit(params: Any, image: Array, image_key: Array) -> Array:
        augment_key, dropout_key = jax.random.split(image_key)
        image = augment(augment_key, image) if augmented else image.astype(jnp.float32)
        return state.apply_fn(
            {"params": params},
            image[None] / 255,
            train=True,
            rngs={"dropout": dropout_key},
        )[0]

    def gradients(inputs: tuple[Any, Array, Array], share: Batch) -> tuple[Any, Totals]:
        params, count, step_key = inputs

        def loss(params: Any, rows: Array, weights: Array) -> tuple[Array, Totals]:
            images, labels, positions = (x[rows] for x in share)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, positions)
            logits = jax.vmap(logit, (None, 0, 0))(params, images, keys)
            totals = weighted_totals(logits, labels, weights)
            return totals.loss, totals

        turn = functools.partial(jax.grad(loss, has_aux=True), params)
        return sum_over_images(turn, jnp.sum(share.positions < count), per_turn)

    step_key = jax.random.fold_in(key, state.step)
    inputs = (state.params, count, step_key)
    grads, totals = on_each_device(mesh, gradients)(inputs, batch)
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    return state.apply_gradients(grads=grads), totals, removed_energy(grads)


def evaluate(
    state: TrainState, split: Batch, count: Array, *, mesh: Mesh, per_turn: int
) -> Totals:
    """Returns the totals over a whole split, without augmentation and dropout."""

    def score(inputs: tuple[Any, Array], share: Batch) -> Totals:
        params, count = inputs

        def turn(rows: Array, weights: Array) -> Totals:
            images, labels = share.images[rows], share.labels[rows]
            images = images.astype(jnp.float32) / 255
            logits = state.apply_fn({"params": params}, images)
            return weighted_totals(logits, labels, weights)

        return sum_over_images(turn, jnp.sum(share.positions < count), per_turn)

    return on_each_device(mesh, score)((state.params, count), split)


def deal(split: data.Split, indices: np.ndarray, batch_size: int, mesh: Mesh) -> Batch:
    """Returns the batch of the images `indices` on the devices, dealt out in turn.

    It is padded to `batch_size`, and that to a multiple of the devices.
    """
    size = math.ceil(batch_size / mesh.size) * mesh.size
    padded = np.pad(indices, (0, size - len(indices)))
    order = np.arange(size, dtype=np.int32).reshape(-1, mesh.size).T.ravel()
    rows = padded[order]
    sharding = NamedSharding(mesh, P("batch"))

    def spread(shape: tuple[int, ...], take: Callable[[Any], np.ndarray]) -> Array:
        # Each process is asked for what its own devices hold, and for no more.
        return jax.make_array_from_callback((size, *shape), sharding, take)

    return Batch(
        spread(split.images.shape[1:], lambda index: split.images[rows[index[0]]]),
        spread((), lambda index: split.labels[rows[index]]),
        spread((), lambda index: order[index]),
    )


def epoch_batches(
    seed: int, epoch: int, size: int, batch_size: int
) -> list[np.ndarray]:
    """Returns the indices of an epoch's batches, int64, each image once.

    All batches have `batch_size` images but the last, which has what is left.
    """
    order = np.random.default_rng((seed, epoch)).permutation(size)
    return np.split(order, range(batch_size, size, batch_size))


class Program(NamedTuple):
    """The two compiled functions of a run, and the seconds that compiling took."""

    train_step: Callable[..., tuple[TrainState, Totals, Any]]
    evaluate: Callable[..., Totals] | None
    compile_seconds: float


def compile_program(
    config: Config, state: TrainState, test: Batch, mesh: Mesh
) -> Program:
    """Compiles the train step, and the evaluation if it is wanted, ahead of time."""
    start = time.perf_counter()
    per_turn = images_per_turn(config.batch_size)
    size = math.ceil(config.batch_size / mesh.size) * mesh.size
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (size, *x.shape[1:]), x.dtype, sharding=x.sharding
        ),
        test,
    )
    count = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    step = functools.partial(
        train_step, mesh=mesh, augmented=config.augment, per_turn=per_turn
    )
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch, count, key)
    compiled_step = lowered.compile()
    compiled_evaluate = None
    if config.evaluate:
        evaluation = functools.partial(evaluate, mesh=mesh, per_turn=per_turn)
        compiled_evaluate = jax.jit(evaluation).lower(state, test, count).compile()
    return Program(compiled_step, compiled_evaluate, time.perf_counter() - start)


def train_epoch(
    program: Program,
    state: TrainState,
    batches: Iterable[tuple[Batch, int]],
    key: Array,
    progress: Progress,
    on_step: Callable[[Progress], bool],
) -> tuple[TrainState, Progress]:
    """Takes one step a batch, until they end or `on_step` says so.

    Args:
      program: the compiled functions.
      state: the state at the start.
      batches: each batch and the number of images in it.
      key: the key of the run's steps.
      progress: how far the epoch is at the start.
      on_step: called after each step; returns whether to go on.

    Raises:
      Diverged: if a step's loss is not finite.
    """
    start = time.perf_counter() - progress.seconds
    batches = iter(batches)
    batch = next(batches, None)
    while batch is not None:
        images, count = batch
        state, totals, energy = program.train_step(state, images, np.int32(count), key)
        batch = next(batches, None)  # made ready while the devices work
        loss = float(totals.loss)
        removed = by_path(energy, state.params)
        progress = Progress(
            epoch=progress.epoch,
            steps=progress.steps + 1,
            images=progress.images + count,
            loss=progress.loss + loss,
            correct=progress.correct + float(totals.correct),
            seconds=time.perf_counter() - start,
            removed={
                path: progress.removed.get(path, 0.0) + share
                for path, share in removed.items()
            },
        )
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss / count} at epoch {progress.epoch}, "
                f"step {progress.steps}."
            )
        if not on_step(progress):
            break
    return state, progress


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


def initial_state(config: Config, key: Array, dataset: data.Dataset) -> TrainState:
    """Returns the state to start from: fresh, or with an earlier run's parameters.

    Raises:
      UsageError: if those parameters are for other images or classes.
    """
    tx, classes = optimizer(config), len(dataset.class_names)
    state = init_state(key, dataset.image_shape, tx, classes)
    if config.init_from is None:
        return state
    params = checkpoint.load_params(config.init_from / "params")
    ours, theirs = (jax.tree.map(jnp.shape, tree) for tree in (state.params, params))
    if ours != theirs:
        raise UsageError(
            f"--init-from must be a run on images of {dataset.image_shape} with "
            f"{classes} classes, got {config.init_from}, whose parameters differ."
        )
    return state.replace(params=jax.tree.map(jnp.asarray, params))


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from epoch to epoch."""

    config: Config
    dataset: data.Dataset
    reporter: report.Reporter
    stop: Stop
    mesh: Mesh
    step_key: Array
    start_params: Any
    checkpoints: checkpoint.Checkpoints | None  # None but in the first process

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return math.ceil(len(self.dataset.train) / self.config.batch_size)


def fit(
    config: Config, dataset: data.Dataset, reporter: report.Reporter, stop: Stop
) -> TrainState:
    """Trains as configured, on from the newest checkpoint if there is one.

    Args:
      config: the run's configuration.
      dataset: the images.
      reporter: is told of the data, the model, each step and epoch, and the end.
      stop: the user's requests to stop, obeyed after the step in hand.

    Returns:
      The final state.

    Raises:
      UsageError: if the configuration does not suit the data.
      Diverged: if the loss or the parameters are no longer finite.
      Interrupted: if the user stopped it; then everything is saved.
    """
    if config.batch_size > len(dataset.train):
        raise UsageError(
            f"--batch-size must be at most the {len(dataset.train)} training images, "
            f"got {config.batch_size}."
        )
    reporter.start(config, dataset)
    mesh = all_devices()
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    state = initial_state(config, init_key, dataset)
    folder = reporter.workdir and reporter.workdir / "checkpoints"
    run = Run(
        config, dataset, reporter, stop, mesh, step_key, jax.device_get(state.params),
        checkpoint.Checkpoints(folder) if folder else None,
    )  # fmt: skip
    model = CNN(len(dataset.class_names))
    reporter.model(model, run.start_params, dataset.image_shape)
    state, progress = resumed(run, state)
    state = processes.replicate(state, mesh)
    if progress.epoch <= config.epochs:
        state = train(run, state, progress)
    reporter.finish(jax.device_get(state.params))
    return state


def resumed(run: Run, state: TrainState) -> tuple[TrainState, Progress]:
    """Returns the newest checkpoint, in every process, or else `state` itself."""
    found = None
    if run.checkpoints:
        found = run.checkpoints.restore(state, run.reporter.warn)
    restored, record = processes.from_the_first(
        found and found[0], found and dataclasses.asdict(found[1]), state
    )
    progress = Progress(**record) if record else Progress()
    run.reporter.resumed(progress)
    return restored if record else state, progress


def train(run: Run, state: TrainState, progress: Progress) -> TrainState:
    """Returns the state after the last epoch; saves a checkpoint after each."""
    size = len(run.dataset.test)
    test = deal(run.dataset.test, np.arange(size), size, run.mesh)
    program = compile_program(run.config, state, test, run.mesh)
    run.reporter.compiled(program.compile_seconds)
    with run.stop.deferred():
        while progress.epoch <= run.config.epochs:
            state, progress = one_epoch(run, program, state, test, progress)
    return state


def one_epoch(
    run: Run, program: Program, state: TrainState, test: Batch, progress: Progress
) -> tuple[TrainState, Progress]:
    """Returns the state and progress after the epoch that `progress` is in.

    Raises:
      Interrupted: after the step in hand is done and saved.
      Diverged: if the loss or the parameters are no longer finite.
    """
    size, batch_size = len(run.dataset.train), run.config.batch_size
    indices = epoch_batches(run.config.seed, progress.epoch, size, batch_size)
    batches = (
        (deal(run.dataset.train, rows, batch_size, run.mesh), len(rows))
        for rows in indices[progress.steps :]
    )
    signum = None

    def go_on(progress: Progress) -> bool:
        nonlocal signum
        run.reporter.step(progress)
        signum = processes.any_of_them(run.stop.signum)
        return signum is None

    try:
        state, progress = train_epoch(
            program, state, batches, run.step_key, progress, go_on
        )
        check_finite(state, progress)
    except Diverged as error:
        raise Diverged(f"{error} {run.reporter.after_divergence}") from error
    if progress.steps == run.steps:
        report_epoch(run, program, state, test, progress)
        progress = Progress(epoch=progress.epoch + 1)
    if run.checkpoints:
        done = (progress.epoch - 1) * run.steps + progress.steps
        run.checkpoints.save(done, state, progress)
    if signum is not None and progress.epoch <= run.config.epochs:
        raise Interrupted(signum, run.reporter.how_to_resume)
    return state, progress


def check_finite(state: TrainState, progress: Progress) -> None:
    """Raises `Diverged` unless all parameters are finite."""
    params = jax.tree.leaves(jax.device_get(state.params))
    if not all(np.isfinite(leaf).all() for leaf in params):
        raise Diverged(
            f"parameters are not finite after epoch {progress.epoch}, "
            f"step {progress.steps}."
        )


def report_epoch(
    run: Run, program: Program, state: TrainState, test: Batch, progress: Progress
) -> None:
    """Evaluates the state and reports the epoch that it has finished."""
    drift = mean_drift(jax.device_get(state.params), run.start_params)
    metrics = report.Epoch(
        progress.epoch,
        progress.seconds,
        progress.loss / progress.images,
        progress.correct / progress.images,
        *evaluated(program, state, test, len(run.dataset.test)),
    )
    diagnostics = {
        "removed_energy": {
            path: share / progress.steps for path, share in progress.removed.items()
        },
        "mean_drift": by_path(drift, run.start_params),
    }
    run.reporter.epoch(metrics, diagnostics)


def evaluated(
    program: Program, state: TrainState, test: Batch, count: int
) -> tuple[float | None, float | None]:
    """Returns the held-out loss and accuracy, or Nones where evaluation is off."""
    if program.evaluate is None:
        return None, None
    totals = program.evaluate(state, test, np.int32(count))
    return float(totals.loss) / count, float(totals.correct) / count
