"""Text that fits a terminal, with whole words and aligned columns."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from train.record.metrics import SCORES

NARROWEST = 80  # columns; nobody reads tables in less
GAP = "  "
SHORTER = {
    **{one.long: one.short for score in SCORES for one in score.metrics().values()},
    "seconds an epoch, least": "s/epoch",
    "training seconds": "seconds",
    "mean difference": "mean",
}
LEFT_OUT = ("each seed", "median")  # too wide for a terminal
TEXTS = ("arm", "metric")  # columns that are read, not compared


def width() -> int:
    """Returns the number of columns of the terminal, or those for a pipe."""
    return max(NARROWEST, shutil.get_terminal_size().columns)


def fitted(text: str, columns: int, indent: str = "") -> str:
    """Returns a text whose lines fit the columns, broken between words.

    Args:
      text: one or more lines.
      columns: the columns of the terminal.
      indent: put before each continuation line.
    """
    return "\n".join(
        line
        if len(line) <= columns
        else textwrap.fill(
            line, columns, subsequent_indent=indent, drop_whitespace=True,
            break_long_words=False, break_on_hyphens=False,
        )
        for line in text.split("\n")
    )  # fmt: skip


def fitted_report(report: str, columns: int) -> str:
    """Returns what `describe` prints, with its last column broken between words."""
    header, rule, *lines = report.split("\n")
    last = header.rindex(GAP) + len(GAP)
    rows = lines[: lines.index("")]
    fitting = [header[:columns], rule[:columns]]
    for row in rows:
        first, *more = textwrap.wrap(row[last:], max(columns - last, 1)) or [""]
        fitting += [row[:last] + first, *(" " * last + text for text in more)]
    return "\n".join([*fitting, fitted("\n".join(lines[len(rows) :]), columns)])


def shortened(name: str, columns: int) -> str:
    """Returns a name cut to so many letters in the middle, which tells the least."""
    if len(name) <= columns:
        return name
    tail = (columns - 1) * 2 // 3
    return f"{name[: columns - 1 - tail]}…{name[-tail:]}"


def heading(name: str, columns: int) -> list[str]:
    """Returns the lines of a heading above a column, broken between words."""
    return textwrap.wrap(name, max([columns, *map(len, name.split())]))


def terminal_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], columns: int
) -> str:
    """Returns a table as aligned lines.

    Headings are broken between words. If a table is still too wide, its last columns go
    below the others, with the first columns repeated.
    """
    kept = [i for i, name in enumerate(header) if name not in LEFT_OUT]
    rows = [[SHORTER.get(row[i], row[i]) for i in kept] for row in rows]
    names = [SHORTER.get(header[i], header[i]) for i in kept]
    cells = list(zip(*rows, strict=True))
    heads = [
        heading(name, max(map(len, column)))
        for name, column in zip(names, cells, strict=True)
    ]
    height = max(map(len, heads))
    table = [
        aligned([""] * (height - len(head)) + head, column, header[i] in TEXTS)
        for i, head, column in zip(kept, heads, cells, strict=True)
    ]
    keys = 2 if header[0] == "arm" else 1
    return "\n\n".join(
        "\n".join(GAP.join(line).rstrip() for line in zip(*part, strict=True))
        for part in parts(table, keys, columns)
    )


def aligned(head: Sequence[str], cells: Sequence[str], is_text: bool) -> list[str]:
    """Returns the padded lines of a column: texts on the left, figures on the right."""
    lines = [*head, *cells]
    widest = max(map(len, lines))
    return [line.ljust(widest) if is_text else line.rjust(widest) for line in lines]


def parts(
    table: Sequence[list[str]], keys: int, columns: int
) -> Iterator[list[list[str]]]:
    """Yields groups of columns that fit side by side, each after the first columns."""
    first, rest = list(table[:keys]), list(table[keys:])
    part: list[list[str]] = []
    for column in rest:
        taken = sum(len(other[0]) + len(GAP) for other in [*first, *part])
        if part and taken + len(column[0]) > columns:
            yield first + part
            part = []
        part.append(column)
    yield first + part
