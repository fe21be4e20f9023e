"""Makes the README the first page of the site, with what it links to beside it."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\(([^)#:]+)\)")
"""The target of a link in Markdown that is a file."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the README and, from wherever they lie, the files that it leads to."""
    root = Path(config.config_file_path).parent
    docs = Path(config.docs_dir)
    readme = (root / "README.md").read_text()
    in_site = readme.replace(f"]({docs.name}/", "](")
    files.append(File.generated(config, "index.md", content=in_site))

    waiting = [(root / "README.md", target) for target in LINK.findall(readme)]
    seen = set()
    while waiting:
        origin, target = waiting.pop()
        path = (origin.parent / target).resolve()
        if path in seen or path.is_relative_to(docs):
            continue
        seen.add(path)
        source = path.relative_to(root).as_posix()
        files.append(File(source, str(root), config.site_dir, True))
        if path.suffix == ".md":
            waiting += [(path, link) for link in LINK.findall(path.read_text())]
    return files
