"""The configuration of a run: the options that all tasks share, and their rules."""

import ctypes
import dataclasses
import importlib.util
import os
import pathlib
import platform
import typing
from typing import ClassVar, Literal

from train.faults import UsageError

MAX_CPU_DEVICES = 16

Optimizer = Literal["rmsprop", "sgd", "adam", "adamw"]
Placement = Literal["gradient", "update"]
Feed = Literal["auto", "host", "device"]
Precision = Literal["float32", "bfloat16"]


def expanded(path: str | pathlib.Path) -> pathlib.Path:
    """Returns a path given by a user, with `~` replaced by their home folder.

    A shell does not expand the `~` in `--workdir=~/run`.
    """
    return pathlib.Path(os.path.expanduser(path))


def default_data_dir() -> pathlib.Path:
    """Returns the folder that TensorFlow Datasets itself would use."""
    return expanded(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))


class Paths:
    """A configuration that expands its paths when it is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            path = getattr(self, field.name)
            kinds = field.type, *typing.get_args(field.type)  # of a union, its members
            if pathlib.Path in kinds and path is not None:
                object.__setattr__(self, field.name, expanded(path))


def prepare_jax() -> None:
    """Configures JAX for this machine, unless the environment says otherwise.

    JAX then keeps compiled programs in the user's cache folder, counts each CPU core
    as a device, and keeps the memory that a step frees for the next one. Call this
    before JAX is imported.
    """
    cache = expanded(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", cache / "optax_gc" / "jax")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(expanded(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = os.cpu_count() or 1
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(cores, MAX_CPU_DEVICES)))
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory, if it is glibc.

    By default it returns large arrays to the system, which then has to clear each page
    again for the next step. That takes a quarter of the decoder's time on a CPU.

    References:
      https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and platform.libc_ver()[0] == "glibc":
        mallopt(-4, 0)  # M_MMAP_MAX: no array in a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: bytes to keep
        mallopt(-2, 2**28)  # M_TOP_PAD: bytes to ask for at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataDir(Paths):
    """Where TensorFlow Datasets keeps the data of a task."""

    data_dir: pathlib.Path = dataclasses.field(default_factory=default_data_dir)
    """The TensorFlow Datasets folder, in which data is looked up and prepared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Paths):
    """How a run trains, apart from its arm and seed; each task sets the defaults."""

    epochs: int
    """Passes over the training data."""

    batch_size: int
    """Examples per step."""

    optimizer: Optimizer
    """SGD with momentum 0.9, RMSprop as in Keras, Adam, or AdamW."""

    learning_rate: float
    """Step size of the optimizer."""

    precision: Precision = "float32"
    """Precision of activations; parameters, updates and the loss stay in float32."""

    feed: Feed = "auto"
    """Where to keep the training data; auto: on an accelerator if it fits, else on the
    host."""

    evaluate: bool = True
    """Measure loss and accuracy on the held-out data after every epoch."""

    evaluations: int = 0
    """Also measure them this many times during the run, at even intervals."""

    debug: bool = False
    """Show a traceback if the command fails."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Training):
    """One run: its arm, its seed, its folder, and the processes that share it."""

    prefix: ClassVar[str] = ""  # of the names of new folders

    gc: bool = False
    """Centralize the gradient of every weight vector."""

    placement: Placement = "gradient"
    """What --gc centralizes: the gradient, or the optimizer's update."""

    gc_only: tuple[str, ...] = ()
    """Path patterns of the kernels to centralize, such as 'Conv_*'; by default, all."""

    gc_not: tuple[str, ...] = ()
    """Path patterns of the kernels to leave alone."""

    placebo: bool = False
    """Instead of --gc: remove a random direction from each gradient, not its mean."""

    seed: int = 0
    """Seed for the initial parameters, shuffling, augmentation and dropout."""

    workdir: pathlib.Path | None = None
    """New folder for the run's files; by default, the next free one under runs/."""

    resume: bool = False
    """Continue the run in --workdir from its newest checkpoint, if it has one."""

    tensorboard: bool = False
    """Also write the metrics as TensorBoard event files, into the run's folder."""

    distributed: bool = False
    """This is one of several processes; JAX finds the others (Slurm, TPU, MPI...)."""

    coordinator: str | None = None
    """HOST:PORT of process 0, if JAX does not find it."""

    num_processes: int | None = None
    """Number of processes, if JAX does not find it."""

    process_id: int | None = None
    """Number of this process, counted from 0, if JAX does not find it."""

    patience: int = 60
    """Seconds to wait for the other processes before they count as lost."""

    @property
    def is_one_of_several(self) -> bool:
        """Whether other processes train the run too."""
        return self.distributed or self.coordinator is not None

    def check(self) -> None:
        """Raises a `UsageError` that names the first field that is out of range."""
        for field in ("epochs", "batch_size"):
            if getattr(self, field) < 1:
                raise UsageError(
                    f"--{field.replace('_', '-')} must be at least 1, "
                    f"got {getattr(self, field)}."
                )
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(
                f"--learning-rate must be a positive number, got {self.learning_rate}."
            )
        if self.evaluations < 0:
            raise UsageError(
                f"--evaluations must be at least 0, got {self.evaluations}."
            )
        if self.evaluations and not self.evaluate:
            raise UsageError("--evaluations needs --evaluate, got --no-evaluate.")
        check_arm(self)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must lie in [0, 2**32), got {self.seed}.")
        if self.resume and self.workdir is None:
            raise UsageError(
                "--resume needs --workdir, the folder of the run to continue."
            )
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise UsageError(
                "--tensorboard needs tensorboardX, which is not installed. From the "
                "clone: pip install -e '.[tensorboard]'"
            )
        check_processes(self)


NOT_RESULTS = frozenset(
    {
        *("data_dir", "image", "debug", "workdir", "resume", "feed", "tensorboard"),
        *("distributed", "coordinator", "num_processes", "process_id", "patience"),
    }
)  # options that may differ when a run is resumed


def check_arm(config: Config) -> None:
    """Raises a `UsageError` if the arm's options contradict each other."""
    if config.gc and config.placebo:
        raise UsageError("--placebo replaces --gc, got both.")
    if config.gc or config.placebo:
        return
    if config.placement == "update":
        raise UsageError("--placement update needs --gc, got --no-gc.")
    for name in ("gc_only", "gc_not"):
        if patterns := getattr(config, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} {' '.join(patterns)} needs --gc, got --no-gc.")


def check_processes(config: Config) -> None:
    """Raises a `UsageError` if options for several processes contradict each other."""
    if config.patience < 1:
        raise UsageError(f"--patience must be at least 1, got {config.patience}.")
    named = (config.coordinator, config.num_processes, config.process_id)
    if named.count(None) not in (0, 3):
        raise UsageError(
            "--coordinator, --num-processes and --process-id must be given together, "
            f"got {', '.join(map(str, named))}."
        )
    if config.coordinator is None:
        return
    if config.num_processes < 1 or not 0 <= config.process_id < config.num_processes:
        raise UsageError(
            "--process-id must lie in [0, --num-processes), "
            f"got {config.process_id} of {config.num_processes}."
        )
    host, _, port = config.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(
            "--coordinator must be HOST:PORT, with a port from 1 to 65535, "
            f"got {config.coordinator}."
        )
