"""The snippets of README.md and docs/ run and print what is shown; links lead on."""

import contextlib
import io
import pathlib
import re

import jax
import pytest
from conftest import prose

from optax_gc import describe, traced_fan_in

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = ROOT / "docs" / "recipes.md"  # whose snippets test_recipes.py runs
LINKING = [
    *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md",
    ROOT / "results/PLAN.md",
    ROOT / "benchmarks/README.md", *sorted((ROOT / "results").rglob("README.md")),
]  # fmt: skip
FENCE = "`" * 3
SNIPPET = rf"{FENCE}python\n(.*?){FENCE}(?:\n\n{FENCE}text\n(.*?){FENCE})?"
LINK = r"\]\((?!https?:)([^)\s]*)\)|(?:src|srcset)=\"([^\"]*)\""


def name_of(path):
    return str(path.relative_to(ROOT))


def snippets(path):
    return re.findall(SNIPPET, path.read_text(), re.DOTALL)


def run(code, path):
    """Runs a snippet; returns its names and what it printed."""
    printed, names = io.StringIO(), {"__name__": "snippet"}
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        contextlib.redirect_stdout(printed),
    ):
        exec(compile(code, path, "exec"), names)
    return names, printed.getvalue()


@pytest.mark.parametrize(
    ("path", "code", "output"),
    [
        pytest.param(path, *snippet, id=f"{name_of(path)} {i}")
        for path in PAGES
        if path != RECIPES
        for i, snippet in enumerate(snippets(path))
    ],
)
def test_a_snippet_prints_what_its_page_shows(path, code, output):
    assert run(code, path)[1] == output


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_python_block_is_found(path):
    assert len(snippets(path)) == path.read_text().count(f"{FENCE}python")


def test_the_pages_have_snippets():
    counts = {name_of(path): len(snippets(path)) for path in PAGES}
    assert counts["README.md"] >= 1
    assert sum(counts.values()) >= 6


def axes_in(cell):
    """Returns the tuples that a cell of a table names, and its doubts."""
    found = re.findall(r"`\(([\d, ]*)\)`( \?)?", cell)
    return [
        (tuple(map(int, re.findall(r"\d+", axes))), bool(doubt))
        for axes, doubt in found
    ]


def test_the_table_of_kernels_is_what_the_library_gives():
    path = ROOT / "docs" / "axes.md"
    examples = run(snippets(path)[0][0], path)[0]["EXAMPLES"]
    table = path.read_text().split("| kernel | shape | guessed | ")[1]
    lines = table.split("\n\n")[0].splitlines()[2:]
    assert len(examples) == len(lines) == 3
    for (f, params, x), line in zip(examples, lines, strict=True):
        shapes, guessed, read = map(axes_in, line.split("|")[2:5])
        guess = describe(params).rows
        rows = describe(params, traced_fan_in(f, params, x)).rows
        assert shapes == [(row.shape, False) for row in rows]
        assert guessed == [(row.axes, bool(row.doubt)) for row in guess]
        assert read == [(row.axes, bool(row.doubt)) for row in rows]
        assert guessed != read


def zoo_row(start):
    """Returns a row of the zoo: models, leaves, and the numbers of each cell."""
    page = (ROOT / "benchmarks" / "README.md").read_text()
    row = page.split(f"\n| {start} ")[1].split("\n")[0]
    found = [re.findall(r"\d+", cell.replace(",", "")) for cell in row.split("|")]
    (models,), (leaves,), *cells = [list(map(int, cell)) for cell in found if cell]
    return models, leaves, cells


def test_the_readme_states_what_the_zoo_found():
    models, leaves, cells = zoo_row("all known")
    _, wrong, silent, right_doubt, two_ways = cells
    text = prose(README)
    assert f"Of {leaves:,} leaves of [{models} published" in text
    mistaken = wrong[0] + silent[0]
    assert f"wrong for {mistaken:,}, of which {silent[0]} have no `?`" in text
    assert (wrong[1], silent[1], right_doubt[1]) == (0, 0, 0)
    assert two_ways[1] == two_ways[2]
    assert f"It marks the {two_ways[2]} that are used in two ways" in text
    assert sum(cell[0] for cell in cells) + two_ways[2] == leaves


def test_the_readme_states_what_the_zoo_found_in_models_new_to_the_reader():
    models, leaves, cells = zoo_row("all new")
    _, wrong, silent, right_doubt, two_ways = cells
    text = prose(README)
    assert f"In {leaves:,} leaves of {models} more" in text
    assert (
        f"is now for {silent[1] or 'none'}; "
        f"{wrong[1] + right_doubt[1]} have a needless `?`" in text
    )
    assert two_ways[1] == two_ways[2]
    assert sum(cell[1] for cell in cells) == leaves
    first = zoo_row("new, at first")[2]
    unmarked = first[2][1] + first[4][2] - first[4][1]  # or used in two ways, untold
    assert f"wrong without a `?` for {unmarked} at first" in text


def anchors(path):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(rf"{FENCE}.*?{FENCE}", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", LINKING, ids=name_of)
def test_every_relative_link_leads_to_what_is_there(path):
    links = ["".join(link) for link in re.findall(LINK, path.read_text())]
    broken = []
    for link in links:
        target, _, anchor = link.partition("#")
        there = path.parent / target if target else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(link)
    assert not broken


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200
