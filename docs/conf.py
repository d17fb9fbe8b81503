"""The documentation site: `python -m sphinx -W -c docs . build/docs`.

Its source folder is the whole repository, so that the links and pictures of README.md,
results/ and the notebook are right in both places.
"""

import importlib.metadata
import pathlib
import re
import shutil
import tomllib

pyproject = pathlib.Path(__file__).parents[1] / "pyproject.toml"
address = (
    tomllib.loads(pyproject.read_text())["project"].get("urls", {}).get("Repository")
)

project = "optax_gc"
author = "The optax_gc authors"
release = importlib.metadata.version("optax_gc")
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
root_doc = "docs/index"
include_patterns = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/*.png",
    "benchmarks/README.md", "notebooks/*.ipynb", "results/*.md", "results/*.png",
    "results/first/README.md", "results/first/*/*.png",
]  # fmt: skip
exclude_patterns = ["build", "runs", ".venv", "results/FINDING.md"]
html_extra_path = ["root"]  # the site's front door leads to docs/index.html
html_theme = "furo"
html_title = f"optax_gc {release}"
html_theme_options = {"source_repository": address} if address else {}
html_show_copyright = False
html_show_sphinx = False
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks/build.py has run it
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {  # shown as the code has them
    name: name
    for name in (
        "AxesSpec", "Policy", "PyTree", "jax.Array", "jax.typing.ArrayLike",
        "optax.GradientTransformation",
    )
}  # fmt: skip
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
add_module_names = False
python_maximum_signature_line_length = 88
# The notebook, the changelog and the plan begin at lower headings than their pages.
suppress_warnings = ["myst.header"]


def setup(app):
    app.connect("autodoc-process-signature", write_types_as_the_code_does)
    app.connect("build-finished", copy_pictures_of_html)


def copy_pictures_of_html(app, error):
    """Copies what the README's <picture> names; Sphinx sees Markdown's images only."""
    if error is None:
        readme = (app.srcdir / "README.md").read_text()
        for name in re.findall(r'(?:src|srcset)="([^"]+)"', readme):
            target = app.outdir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(app.srcdir / name, target)


def write_types_as_the_code_does(app, what, name, obj, options, signature, returns):
    """Mends what Sphinx makes of `Alias | None` and `Callable[..., Any]`."""
    if signature is None:  # of a property
        return None
    alias = r"TypeAliasForwardRef\('([\w.]+)'\)"
    return re.sub(alias, r"\1", signature).replace("[[...]", "[..."), returns
