"""The command lines of the benchmarks, read before anything heavy is imported."""

import argparse
import ast
import importlib.util
import pathlib
import sys
from typing import Any

LIBRARIES = (
    "flax", "transformers", "diffusers", "flaxmodels", "gemma", "tunix", "haiku",
    "equinox", "esm2quinox", "equimo", "alphafold", "keras", "keras-hub",
)  # fmt: skip
MODELS = ("CNN", "ResNet-50", "GPT-2")
Option = tuple[str, dict[str, Any]]

OPTIONS: dict[str, tuple[Option, ...]] = {
    "layers": (),
    "overhead": (
        ("--quick", {"action": "store_true", "help": "small trees, few rounds"}),
        ("--rounds", {"type": int, "help": "of all arms (default: 60, quick 10)"}),
    ),
    "removed": (
        ("--write", {"action": "store_true", "help": "docs/removed.json and .png"}),
    ),
    "scaling": (
        ("--row", {"nargs": 3, "type": int, "help": argparse.SUPPRESS}),
    ),
    "step_aot": (),
    "tilings": (),
    "tpu_aot": (("--model", {"choices": MODELS, "default": "GPT-2"}),),
    "zoo": (
        (
            "--libraries",
            {"nargs": "+", "choices": LIBRARIES, "default": [*LIBRARIES]},
        ),
        (
            "--rounds",
            {"type": int, "default": 7, "help": "of timing; 0 for none"},
        ),
    ),
}  # fmt: skip
TYPED = ("accelerator", "epoch", "processes")  # theirs are dataclasses, read by tyro


def begin() -> None:
    """Reads the command line of the benchmark that `python -m` is about to run.

    So `--help` answers at once, and a slip is told before anything is measured.
    """
    if sys.argv[:1] != ["-m"]:
        return
    command = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)]
    name = command.removeprefix("benchmarks.")
    if name in OPTIONS:
        parse(name)
    for package in ("jax", "rich", *(["tyro"] if name in TYPED else [])):
        if importlib.util.find_spec(package) is None:
            sys.exit(
                f"error: python -m {command} needs {package}, which is not installed. "
                "From the clone: pip install -e '.[train]'"
            )


def parse(name: str) -> argparse.Namespace:
    """Returns the options of a benchmark."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=ast.get_docstring(ast.parse(source(name))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, described in OPTIONS[name]:
        parser.add_argument(option, **described)
    return parser.parse_args()


def source(name: str) -> str:
    """Returns the text of a benchmark's module."""
    return (pathlib.Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
