"""Builds the site, follows its links, and takes pictures of its pages.

    python docs/check.py --pictures build/pictures

builds into `build/docs`, follows every link and anchor within the site, and checks that
every image exists and has alternative text. `--pictures` needs Chromium (Debian's
`chromium`): it takes pictures of each page at 1280 and 390 pixels, light and dark, and
reports pages that are wider than their window. Links to other sites are not followed.
"""

import argparse
import contextlib
import functools
import html
import http.server
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator

import bs4

ROOT = pathlib.Path(__file__).parents[1]
SITE = ROOT / "build" / "docs"
WIDTHS, THEMES = (1280, 390), ("light", "dark")
TALLEST = 12000  # pixels of a page that are taken
FRAME = """<!doctype html><title></title>
<body style="margin: 0"><script>
localStorage.setItem("theme", "{theme}")
const frame = document.createElement("iframe")
frame.style = "border: 0; display: block; width: {width}px; height: {height}px"
frame.src = "/{page}"
frame.onload = () => setTimeout(() => {{
  const root = frame.contentDocument.documentElement
  document.title = root.scrollHeight + " " + root.scrollWidth
}}, 500)
document.body.append(frame)
</script></body>
"""


def main() -> int:
    """Returns 0 if the site has no faults, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pictures", type=pathlib.Path, help="the folder for them")
    parser.add_argument("--pages", default="", help="take only paths with this in them")
    parser.add_argument(
        "--no-build", action="store_true", help="use the existing build/docs"
    )
    options = parser.parse_args()
    if not options.no_build:
        build()
    faults = faults_of(SITE)
    if options.pictures:
        faults += too_wide(SITE, options.pictures, options.pages)
    print(*faults, sep="\n")
    print(f"{len(pages(SITE))} pages, {len(faults)} faults")
    return 1 if faults else 0


def build() -> None:
    """Rebuilds the site from scratch, so that no pages with old names are left."""
    shutil.rmtree(SITE, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-E",
        "-c",
        "docs",
        ".",
        SITE,
    ]
    subprocess.run(command, cwd=ROOT, check=True)


def pages(site: pathlib.Path) -> list[pathlib.Path]:
    """Returns the pages that a reader sees, without Sphinx's own and the sources."""
    own = ("genindex.html", "search.html", "py-modindex.html")
    found = (path for path in sorted(site.rglob("*.html")) if path.name not in own)
    return [path for path in found if "_modules" not in path.parts]


@functools.cache
def parsed(path: pathlib.Path) -> bs4.BeautifulSoup:
    return bs4.BeautifulSoup(path.read_text(), "html.parser")


@functools.cache
def anchors(path: pathlib.Path) -> frozenset[str]:
    """Returns the anchors of this page."""
    return frozenset(tag["id"] for tag in parsed(path).find_all(id=True)) | {""}


def faults_of(site: pathlib.Path) -> list[str]:
    """Returns a line for each broken link, image or table."""
    faults = []
    for path in pages(site):
        page = path.relative_to(site)
        for address in addresses(path):
            if not is_there(path, address, site):
                faults.append(f"{page}: {address} leads nowhere")
        for image in parsed(path).find_all("img"):
            text = image.get("alt", "")
            if not text or text == image["src"] or text.startswith(".."):
                faults.append(f"{page}: {image['src']} has no text instead of it")
        for raw in parsed(path).find_all(string=re.compile(r"^\s*\|.*\|\s*---")):
            faults.append(f"{page}: a table is not drawn: {raw.strip()[:40]}")
    return faults


def addresses(path: pathlib.Path) -> Iterator[str]:
    """Yields the addresses in a page that belong to the site."""
    for tag, name in (
        ("a", "href"),
        ("img", "src"),
        ("link", "href"),
        ("script", "src"),
    ):
        for found in parsed(path).find_all(tag, {name: True}):
            if not urllib.parse.urlsplit(found[name]).scheme:
                yield found[name]
    for source in parsed(path).find_all("source", srcset=True):
        yield source["srcset"]


def is_there(page: pathlib.Path, address: str, site: pathlib.Path) -> bool:
    """Tells whether a file of the site, and the anchor in it, exist."""
    parts = urllib.parse.urlsplit(address)
    target = (page.parent / urllib.parse.unquote(parts.path)).resolve()
    if not parts.path:
        target = page
    if not target.is_file() or site.resolve() not in target.resolve().parents:
        return False
    if target.suffix != ".html":
        return True
    return urllib.parse.unquote(parts.fragment) in anchors(target)


def too_wide(site: pathlib.Path, folder: pathlib.Path, wanted: str) -> list[str]:
    """Takes the pictures; returns a line for each page wider than its window."""
    faults = []
    folder.mkdir(parents=True, exist_ok=True)
    with served(site) as address:
        for path in pages(site):
            page = path.relative_to(site)
            if wanted not in str(page):
                continue
            for width in WIDTHS:
                height, needed = size(site, address, page, width)
                if needed > width:
                    faults.append(f"{page}: {needed} pixels wide, not {width}")
                for theme in THEMES:
                    name = "-".join([*page.with_suffix("").parts, str(width), theme])
                    frame(site, page, width, height, theme)
                    shoot(address, width, height, folder / f"{name}.png")
    (site / "frame.html").unlink(missing_ok=True)
    return faults


@contextlib.contextmanager
def served(site: pathlib.Path) -> Iterator[str]:
    """Serves a folder on the loopback, so that a page can look into another."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/frame.html"
        server.shutdown()
        thread.join()


def frame(
    site: pathlib.Path, page: pathlib.Path, width: int, height: int, theme: str
) -> None:
    """Writes a page that shows another one as in a window of this width.

    Chromium's windows are at least 500 pixels wide, but a frame may be narrower.
    """
    text = FRAME.format(page=page.as_posix(), width=width, height=height, theme=theme)
    (site / "frame.html").write_text(text)


def size(
    site: pathlib.Path, address: str, page: pathlib.Path, width: int
) -> tuple[int, int]:
    """Returns how tall a page is, and how wide it would have to be, in pixels."""
    frame(site, page, width, 800, "light")
    found = chromium("--dump-dom", "--virtual-time-budget=8000", address)
    title = re.search(r"<title>(\d+) (\d+)</title>", html.unescape(found))
    if title is None:
        raise SystemExit(f"{page} did not load")
    return min(int(title[1]), TALLEST), int(title[2])


def shoot(address: str, width: int, height: int, path: pathlib.Path) -> None:
    """Takes a picture of the served page."""
    chromium(
        f"--screenshot={path.resolve()}", f"--window-size={max(width, 500)},{height}",
        "--hide-scrollbars=false", "--virtual-time-budget=8000", address,
    )  # fmt: skip


def chromium(*args: str) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("pictures need Chromium: apt-get install chromium")
    always = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--force-device-scale-factor=1",
    ]
    done = subprocess.run(
        [program, *always, *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
