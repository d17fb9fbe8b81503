"""A command's options, in groups, as `--help` shows them."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

T = TypeVar("T")

GROUPS = {  # in the order of --help; options that no group names belong to "training"
    "comparison": (
        "task", "protocol", "arms", "subsets", "learning_rates", "seeds", "first_seed",
        "jobs", "out",
    ),
    "arm": ("gc", "placement", "gc_only", "gc_not", "placebo"),
    "data": ("dataset", "data_dir", "image", "size", "augment", "evaluate",
             "evaluations", "test"),
    "training": (),
    "stop and resume": ("workdir", "resume", "tensorboard", "debug"),
    "hosts": ("distributed", "coordinator", "num_processes", "process_id", "patience"),
}  # fmt: skip
METAVARS = {
    "coordinator": "HOST:PORT", "image": "FILE", "init_from": "FOLDER",
    "learning_rate": "FLOAT", "num_processes": "INT", "out": "FOLDER",
    "patience": "SECONDS", "process_id": "INT", "workdir": "FOLDER",
    "data_dir": "FOLDER", "gc_only": "PATTERN ...", "gc_not": "PATTERN ...",
    "arms": "ARM ...", "learning_rates": "RATE ...", "dataset": "NAME",
    "subsets": "NAME=PATTERN[,PATTERN...] ...",
}  # fmt: skip


def read(options: type[T], args: Sequence[str], prog: str) -> T:
    """Returns the options parsed from a command line; exits the process on an error.

    Args:
      options: a dataclass whose fields are the options.
      args: the command line.
      prog: the command as its users type it.
    """
    groups = tyro.cli(
        grouped(options), args=args, prog=prog, config=(tyro.conf.OmitArgPrefixes,)
    )
    return options(
        **{k: v for group in vars(groups).values() for k, v in vars(group).items()}
    )


def grouped(options: type) -> type:
    """Returns a dataclass that holds one dataclass for each group with options."""
    texts, hints = docstrings(options), typing.get_type_hints(options)
    members: dict[str, list[tuple[str, Any, Any]]] = {group: [] for group in GROUPS}
    for field in dataclasses.fields(options):
        found = (name for name, fields in GROUPS.items() if field.name in fields)
        annotation = Annotated[hints[field.name], described(field, texts[field.name])]
        member = field.name, annotation, as_it_is(field)
        members[next(found, "training")].append(member)
    classes = {
        name.replace(" ", "_"): dataclasses.make_dataclass(name.title(), fields)
        for name, fields in members.items()
        if fields
    }
    whole = dataclasses.make_dataclass("Options", classes.items())
    whole.__doc__ = options.__doc__
    return whole


def described(field: dataclasses.Field, text: str) -> Any:
    """Returns tyro's settings for an option; an empty default is not shown."""
    named = {"metavar": METAVARS[field.name]} if field.name in METAVARS else {}
    if field.default in (None, ()):
        named["help_behavior_hint"] = ""
    return tyro.conf.arg(help=text, **named)


def as_it_is(field: dataclasses.Field) -> Any:
    """Returns a new field with the default of another field."""
    return dataclasses.field(
        default=field.default, default_factory=field.default_factory
    )


def docstrings(options: type) -> Mapping[str, str]:
    """Returns the docstring of each field of a dataclass, on one line.

    A class's own docstrings take precedence over those of its base classes.
    """
    found: dict[str, str] = {}
    for cls in reversed(options.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
        for field, below in itertools.pairwise(body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found
