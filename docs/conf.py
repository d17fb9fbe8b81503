"""The documentation site: `python -m sphinx -W -c docs . build/docs`.

Its source folder is the whole repository, so that the links and pictures of README.md,
results/ and the notebook work in both places.
"""

import importlib.metadata
import pathlib
import re
import tomllib

pyproject = pathlib.Path(__file__).parents[1] / "pyproject.toml"
address = (
    tomllib.loads(pyproject.read_text())["project"].get("urls", {}).get("Repository")
)

project = "optax_gc"
author = "The optax_gc authors"
release = importlib.metadata.version("optax_gc")
extensions = [
    "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode",
    "sphinx.ext.intersphinx", "sphinx_copybutton", "myst_nb",
]  # fmt: skip
root_doc = "docs/index"
include_patterns = [
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md",
    "docs/*.png", "benchmarks/README.md", "notebooks/*.ipynb", "results/*.md",
    "results/*.png", "results/limits/*.md", "results/limits/*.png",
    "results/first/README.md", "results/first/*/*.png",
]  # fmt: skip
exclude_patterns = [
    "build", "runs", ".venv", "results/FINDING.md", "results/*/FINDING.md",
]  # fmt: skip
html_extra_path = ["root"]  # the site's front door leads to docs/index.html
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme = "furo"
html_title = f"optax_gc {release}"
html_theme_options = {"source_repository": address} if address else {}
html_show_copyright = False
html_show_sphinx = False
myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks/build.py has run it
nb_render_markdown_format = "gfm"  # it has tables
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div.highlight:not(.highlight-text *) pre"
default_role = "py:obj"  # `optax.chain` in a docstring is a link where it is known
# Without internet access there are no links to these sites, and the build still works.
intersphinx_mapping = {
    name: (address, (None, str(pathlib.Path(__file__).with_name("empty.inv"))))
    for name, address in {
        "flax": "https://flax.readthedocs.io/en/latest/",
        "jax": "https://docs.jax.dev/en/latest/",
        "optax": "https://optax.readthedocs.io/en/latest/",
        "python": "https://docs.python.org/3/",
    }.items()
}
intersphinx_timeout = 10
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_type_aliases = {  # shown as in the code
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
    app.connect("missing-reference", link_names_of_ours)
    app.connect("source-read", let_pictures_follow_the_theme)


PICTURE = r'<picture>\s*<source [^>]*srcset="(.*?)"[^>]*>\s*<img (.*?)>\s*</picture>'


def let_pictures_follow_the_theme(app, name, source):
    """Turns a <picture> into two images, of which the theme button shows one.

    A <picture> is for GitHub: it follows the system, and Sphinx ignores its files.
    """

    def images(found):
        dark, attributes = found[1], dict(re.findall(r'(\w+)="(.*?)"', found[2]))
        return "\n".join(
            f"![{attributes['alt']}]({path}){{.only-{theme} width={width}}}"
            for theme, path in (("light", attributes["src"]), ("dark", dark))
            for width in [attributes.get("width", "100%")]
        )

    source[0] = re.sub(PICTURE, images, source[0], flags=re.DOTALL)


RETURNED = {  # types of private modules, which a user reads but never makes
    "Leaf": "optax_gc._axes.Leaf",
    "Report": "optax_gc._report.Report",
    "Sharpness": "optax_gc._sharpness.Sharpness",
}


def link_names_of_ours(app, env, node, text):
    """Finds what a docstring of a private module mentions only by name."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"]
    target, page = RETURNED.get(name, f"optax_gc.{name}"), node["refdoc"]
    resolve = env.domains["py"].resolve_xref
    return resolve(env, page, app.builder, "obj", target, node, text)


def write_types_as_the_code_does(app, what, name, obj, options, signature, returns):
    """Repairs Sphinx's output for `Alias | None` and `Callable[..., Any]`."""
    if what == "class":  # nobody should make one
        return "", None
    if signature is None:  # of a property
        return None
    alias = r"TypeAliasForwardRef\('([\w.]+)'\)"
    return re.sub(alias, r"\1", signature).replace("[[...]", "[..."), returns
