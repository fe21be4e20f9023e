"""The blocks of code on the pages run: short ones here, long ones and shells at night.

``<!-- nightly -->`` on the line before a block of Python has it run at night alone, and
``<!-- by hand -->`` before any block, never: what installs, or needs a cluster.
README.md and docs/flax.md are run by test_readme.py and test_flax.py, which look at
what they train.
"""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in sorted([ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
    if path.name != "flax.md"
}
BLOCK = re.compile(
    r"^(?: *<!-- (?P<mark>.*) -->\n)?"
    r"(?P<indent> *)```(?P<language>\w*).*\n(?P<code>(?s:.*?))^(?P=indent)```$",
    re.MULTILINE,
)


class Block(NamedTuple):
    """A block of code: its mark, language, line and text."""

    mark: str | None
    language: str
    line: int
    code: str

    @property
    def when(self):
        """Which run it is of; None for what is only to be read, or run by hand."""
        assert self.mark in (None, "nightly", "by hand"), f"no such mark: {self.mark}"
        if self.language == "python":
            return self.mark or "short"
        return "nightly" if self.language == "bash" and self.mark is None else None


def blocks(text):
    """All blocks of a page."""
    return [
        Block(
            match["mark"],
            match["language"],
            text.count("\n", 0, match.start("code")),
            textwrap.dedent(match["code"]),
        )
        for match in BLOCK.finditer(text)
    ]


def pages(when):
    """The pages that have something to run."""
    return [n for n, text in PAGES.items() if any(b.when == when for b in blocks(text))]


def run(page, when, folder):
    """Runs the Python of a page from above to below, and with the long ones, shells."""
    names = {"__name__": "__main__"}
    for block in blocks(PAGES[page]):
        if block.when not in ("short", when):
            continue
        if block.language == "python":
            # Lines are counted as on the page.
            code = "\n" * block.line + block.code
            exec(compile(code, str(ROOT / page), "exec"), names)
        else:
            python = str(Path(sys.executable).parent)
            path = {"PATH": f"{python}:{os.environ['PATH']}", "PYTHONPATH": str(folder)}
            command = ["bash", "-euo", "pipefail", "-c", block.code]
            subprocess.run(command, cwd=folder, env=os.environ | path, check=True)


@pytest.mark.parametrize("page", pages("short"))
def test_the_short_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        run(page, "short", tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("page", pages("nightly"))
def test_all_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    """In a copy: commands write to where results are stored."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):
        run(page, "nightly", tmp_path)


def test_blocks_are_found_with_their_marks():
    text = """\
```python
a
```
<!-- nightly -->
```python title="x"
b

c
```

!!! note

    <!-- by hand -->
    ```bash
    d
    ```
```
e
```
"""
    found = blocks(text)
    assert found == [
        (None, "python", 1, "a\n"),
        ("nightly", "python", 5, "b\n\nc\n"),
        ("by hand", "bash", 14, "d\n"),
        (None, "", 17, "e\n"),
    ]
    assert [block.when for block in found] == ["short", "nightly", None, None]
    assert Block(None, "bash", 1, "").when == "nightly"
    with pytest.raises(AssertionError, match="nighly"):
        _ = Block("nighly", "python", 1, "").when
