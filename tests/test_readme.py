"""The README's snippets run, and print what it says."""

import contextlib
import io
import pathlib
import re

import jax
import pytest

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
FENCE = "`" * 3
SNIPPETS = re.findall(
    rf"{FENCE}python\n(.*?){FENCE}(?:\n\n{FENCE}text\n(.*?){FENCE})?", README, re.DOTALL
)


@pytest.mark.parametrize(("code", "output"), SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_prints_what_the_readme_shows(code, output):
    printed = io.StringIO()
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(printed),
    ):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == output


def test_every_python_block_is_found():
    assert len(SNIPPETS) == README.count(f"{FENCE}python") > 5
