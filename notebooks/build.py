"""Builds the notebook from its source, runs it, and saves it with its outputs.

    python notebooks/build.py

The project's address is read from `project.urls` in pyproject.toml, and nowhere else.
"""

import pathlib
import tomllib

import jupytext
import nbclient
import nbformat

HERE = pathlib.Path(__file__).parent
SOURCE = HERE / "gradient_centralization.py"
NOTEBOOK = SOURCE.with_suffix(".ipynb")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def address() -> str | None:
    """Returns the address of the public repository, or None if it has none yet."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    return project.get("urls", {}).get("Repository")


def badge(address: str | None) -> str:
    """Returns the Markdown that says where to open the notebook."""
    if address is None:
        return (
            "The repository has no public address yet, so there is no link into Colab: "
            "run this from a clone, after `pip install -e '.[notebook]'`."
        )
    path = address.removeprefix("https://github.com/")
    file = f"blob/main/{NOTEBOOK.parent.name}/{NOTEBOOK.name}"
    return (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{path}/{file})"
    )


def install(address: str | None) -> str:
    """Returns code that installs the project where the notebook runs."""
    if address is None:
        return "import train  # from a clone; once there is an address, this clones it"
    folder = address.rstrip("/").rpartition("/")[2]
    return (
        f"!git clone -q --depth 1 {address} || git -C {folder} pull -q\n"
        f"%cd -q {folder}\n"
        "%pip install -q -e .[train]"
    )


def notebook(address: str | None) -> nbformat.NotebookNode:
    """Returns the notebook made from its source, without outputs."""
    made = jupytext.read(SOURCE)
    made.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for i, cell in enumerate(made.cells):
        cell.id = f"cell-{i}"
        cell.source = cell.source.replace("# ADDRESS_INSTALL", install(address))
        cell.source = cell.source.replace("ADDRESS_BADGE", badge(address))
    return made


def main() -> None:
    made = notebook(address())
    client = nbclient.NotebookClient(made, timeout=1800, coalesce_streams=True)
    client.execute()
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when it ran, to the microsecond
    nbformat.write(made, NOTEBOOK)


if __name__ == "__main__":
    main()
