"""A command's options, in groups: what `--help` shows and a command line sets."""

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

GROUPS = {  # in the order of --help; what no group names is an option of the training
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
    """Returns the options that a command line sets; ends the process if it cannot.

    Args:
      options: a dataclass, whose fields are the options.
      args: the command line.
      prog: the command, as its users write it.
    """
    groups = tyro.cli(
        grouped(options), args=args, prog=prog, config=(tyro.conf.OmitArgPrefixes,)
    )
    return options(
        **{k: v for group in vars(groups).values() for k, v in vars(group).items()}
    )


def grouped(options: type) -> type:
    """Returns a dataclass with a dataclass for each group that has options."""
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
    """Returns what tyro is told of an option; where nothing is meant, no default."""
    named = {"metavar": METAVARS[field.name]} if field.name in METAVARS else {}
    if field.default in (None, ()):
        named["help_behavior_hint"] = ""
    return tyro.conf.arg(help=text, **named)


def as_it_is(field: dataclasses.Field) -> Any:
    """Returns a new field with another's default."""
    return dataclasses.field(
        default=field.default, default_factory=field.default_factory
    )


def docstrings(options: type) -> Mapping[str, str]:
    """Returns the string below each field of a dataclass, on one line.

    A class's own string goes before those of the classes that it extends.
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
