"""The check of the site finds what is broken; safeguards are in place."""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
WHOLE = '<h1 id="top">Page</h1><a href="#top">up</a><a href="other.html#there">on</a>'


@pytest.fixture
def check():
    pytest.importorskip("bs4")
    spec = importlib.util.spec_from_file_location("check", ROOT / "docs" / "check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (WHOLE, None),
        ('<a href="https://example.org/x#y">elsewhere</a>', None),
        ('<a href="gone.html">', "page.html: gone.html leads nowhere"),
        ('<a href="other.html#gone">', "page.html: other.html#gone leads nowhere"),
        ('<a href="#gone">', "page.html: #gone leads nowhere"),
        ('<a href="../outside.html">', "page.html: ../outside.html leads nowhere"),
        ('<img src="gone.png" alt="A picture">', "page.html: gone.png leads nowhere"),
        ('<img src="a.png">', "page.html: a.png has no text instead of it"),
        ('<img src="a.png" alt="A picture">', None),
        ("<p>| a | b | |---|---|</p>", "page.html: a table is not drawn: | a | b"),
    ],
)  # fmt: skip
def test_the_check_of_the_site_tells_what_is_broken(body, fault, check, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "outside.html").touch()
    (site / "a.png").touch()
    (site / "other.html").write_text('<p id="there">Here</p>')
    (site / "page.html").write_text(body)
    found = check.faults_of(site)
    assert [line.startswith(fault) for line in found] == [True] if fault else not found


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda p: p.stem
)
def test_workflows_name_their_actions_by_commit_with_the_release_beside_it(path):
    actions = re.findall(r"uses: (.*)", path.read_text())
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


def test_the_hosts_page_warns_of_the_open_port():
    page = (ROOT / "docs" / "hosts.md").read_text()
    assert "asks nobody for a password" in page
    assert "closed network" in " ".join(page.split())
