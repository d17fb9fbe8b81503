"""Tables of numbers."""

from rich import box
from rich.table import Table


def blank_table(
    title: str | None, *columns: str, lines: box.Box = box.SIMPLE_HEAD
) -> Table:
    """Returns a table without rows, with numbers aligned to the right."""
    table = Table(title=title, title_justify="left", box=lines)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table
