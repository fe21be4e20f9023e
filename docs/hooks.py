"""Makes pages of what lies outside of docs/: the README first, the stored tables."""

import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LINK = re.compile(r"""(\]\(|(?:href|src|srcset)=")([^)"#:\s]+)(?=[)"#\s])""")
"""A link in Markdown or HTML to a file, and the file."""
HEADING = re.compile(r"# (.*)")
COMMAND = re.compile(r"[Ww]ritten\s+by\s+`(.*?)`", re.DOTALL)
BENCHMARKS = """\
# Benchmarks

Every table that is stored in `benchmarks/results/`, and the command that writes it, run
in the root of the repository with the extra `benchmarks`. Beside each lie the numbers
that it is made of, with machine, versions, revision and seeds. The tables of the paper
are on [pages of their own](reproduction.md).

| table | command |
|---|---|
"""


def on_config(config: MkDocsConfig) -> None:
    """Takes the address of the repository from the metadata; lists the tables."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config.repo_url = project["urls"]["Repository"]
    config.repo_name = project["name"]
    (tables,) = [
        each["Benchmarks"] for each in config.nav or () if "Benchmarks" in each
    ]
    tables += [{title(path): source(path)} for path in stored()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the README, the project's own pages and the tables, and what they link."""
    docs = Path(config.docs_dir)
    readme = (ROOT / "README.md").read_text()
    in_site = LINK.sub(lambda m: m[1] + m[2].removeprefix(f"{docs.name}/"), readme)
    files.append(File.generated(config, "index.md", content=in_site))
    files.append(File.generated(config, "benchmarks.md", content=benchmarks()))

    waiting = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *stored()]
    waiting += linked(ROOT / "README.md")
    seen = {ROOT / "README.md"}
    while waiting:
        path = waiting.pop()
        if path in seen or path.is_relative_to(docs):
            continue
        seen.add(path)
        files.append(File(source(path), str(ROOT), config.site_dir, True))
        waiting += linked(path) if path.suffix == ".md" else []
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> None:
    """Has the search find pages that explain before pages of tables."""
    del markdown, config, files
    if page.file.src_uri.startswith(("reproduction/", "benchmarks/results/")):
        page.meta["search"] = {"boost": 0.1}


def linked(page: Path) -> list[Path]:
    """The files that a page leads to."""
    return [(page.parent / m[2]).resolve() for m in LINK.finditer(page.read_text())]


def stored() -> list[Path]:
    """The pages under benchmarks/results/."""
    return sorted(RESULTS.rglob("*.md"))


def source(path: Path) -> str:
    """Where the site has a file of the repository."""
    return path.relative_to(ROOT).as_posix()


def title(path: Path) -> str:
    """The heading of a page, or what its folder is called."""
    heading = HEADING.match(path.read_text())
    return heading[1] if heading else path.parent.name.replace("_", " ").capitalize()


def benchmarks() -> str:
    """The list of all tables; one that names no command fails the build."""
    rows = [f"| [{title(p)}]({source(p)}) | {command(p)} |" for p in stored()]
    return BENCHMARKS + "\n".join(rows) + "\n"


def command(path: Path) -> str:
    """What wrote a table; a README has the commands of runs."""
    if path.name == "README.md":
        return "of each run, there"
    found = COMMAND.search(path.read_text())
    if not found:
        raise PluginError(f"{source(path)} does not say which command wrote it")
    return f"`{' '.join(found[1].split())}`"
