"""Checks the site as it is built: links, anchors, public names, nothing from elsewhere.

mkdocs looks at the links of Markdown; this looks at those of docstrings, templates and
HTML as well.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

LOADING = ("src", "srcset", "data", "poster")
"""The attributes by which an element has a browser load something."""
ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]*)")
ROOT = "http://site/"


class Links(HTMLParser):
    """The anchors of a page, the links to follow, and what it loads."""

    def __init__(self, html: str) -> None:
        """Reads a page."""
        super().__init__()
        self.anchors: set[str] = set()
        self.followed: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.followed.add(values["href"])
        if tag == "link" and "href" in values:
            self.loaded.add(values["href"])
        for name in LOADING:
            # In a set of sources the size of each stands behind it.
            if name in values:
                self.loaded.update(x.split()[0] for x in values[name].split(","))


def on_post_build(config: MkDocsConfig) -> None:
    """Fails the build, with all that is wrong."""
    site = Path(config.site_dir)
    pages = read(site)
    wrong = [*dead(site, pages), *from_elsewhere(site, pages)]
    wrong += undocumented(public(), [pages[page] for page in reference(config)])
    if wrong:
        raise PluginError("\n".join(["The site is not whole:", *wrong]))


def read(site: Path) -> dict[str, Links]:
    """All pages, by their place in the site."""
    return {
        path.relative_to(site).as_posix(): Links(path.read_text())
        for path in site.rglob("*.html")
    }


def dead(site: Path, pages: Mapping[str, Links]) -> Iterator[str]:
    """Links within the site to a file or an anchor that it does not have."""
    for name, page in pages.items():
        for target in sorted(page.followed | page.loaded):
            url = urlsplit(urljoin(ROOT + name, target))
            if url.netloc != "site":
                continue
            path = site / unquote(url.path).lstrip("/")
            if path.is_dir():
                path /= "index.html"
            found = pages.get(path.relative_to(site).as_posix())
            anchor = unquote(url.fragment)
            if not path.exists():
                yield f"{name} links to {target}, which is not there"
            elif anchor and found and anchor not in found.anchors:
                yield f"{name} links to {target}, where there is no such anchor"


def from_elsewhere(site: Path, pages: Mapping[str, Links]) -> Iterator[str]:
    """What a page or a style has a browser load from another host."""
    for name, page in pages.items():
        for source in sorted(page.loaded):
            if ELSEWHERE.match(source):
                yield f"{name} loads {source}"
    for path in site.rglob("*.css"):
        for source in STYLE.findall(path.read_text()):
            yield f"{path.relative_to(site)} loads {source}"


def undocumented(names: Iterable[str], pages: Iterable[Links]) -> Iterator[str]:
    """Public names without an anchor on a page of the reference."""
    anchors = {anchor for page in pages for anchor in page.anchors}
    for name in names:
        if f"qiaso_jax.{name}" not in anchors:
            yield f"qiaso_jax.{name} is on no page under API"


def public() -> list[str]:
    """The names of ``qiaso_jax.__all__``."""
    root = str(Path(__file__).parents[1])
    return [str(x) for x in griffe.load("qiaso_jax", search_paths=[root]).exports or ()]


def reference(config: MkDocsConfig) -> list[str]:
    """The pages of the navigation under API, as they are built."""
    (api,) = [entry["API"] for entry in config.nav or () if "API" in entry]
    folders = config.docs_dir, config.site_dir
    return [File(path, *folders, True).dest_uri for path in leaves(api)]


def leaves(nav: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)
