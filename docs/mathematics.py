"""Shows the mathematics of docstrings, which is in reST for ``help()``, as MathML.

It is converted when the site is built, and rendered by the browser itself: no script,
nothing from elsewhere. Subscripts and powers in the midst of a sentence, as in p_{t+1}
and e^{−ηL}, are shown as such. What is left unconverted fails the build.
"""

import re
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from math_core import LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

MATHML = LatexToMathML()
DIRECTIVE = re.compile(r"^( *)\.\. math::(.*\n?(?:\s*^\1 +\S.*\n?)*)", re.MULTILINE)
"""``.. math::`` with what follows it on the line, and the lines indented below it."""
ROLE = r":(math|func):`([^`]+)`"
LETTER = "A-Za-z0-9α-ω"
SUBSCRIPT = (
    r"(?<!\w\w)(?<=[^\W\d_]|[\u0300-\u036f])_"
    rf"(?:\{{([^}}\n]+)\}}|([{LETTER}]{{1,2}})(?![{LETTER}_]))"
)
"""Of a single letter, which may have an accent; longer words are names of Python's."""
SUPERSCRIPT = r"(?<=[\w)\]])\^(?:\{([^}\n]+)\}|\(([^)\n]+)\)|([−-]?[^\W_]+(?:\.\d+)?))"
CODE = re.compile(r"<(pre|code|script|style)\b.*?</\1>", re.DOTALL)
MATHEMATICS = re.compile(r":math:|\.\. math::")
MARKUP = re.compile(r":[a-z]+:(?=$|<)|\.\. [a-z]+::|`|[_^]\{|^\d+\. ")
"""A role, a directive, a quote, an index, or an item that is no longer of its list."""


class _Role(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str):  # type: ignore[override]
        kind, content = m.groups()
        if kind == "math":
            result = self.md.htmlStash.store(mathml(content, display=False))
        else:
            result = Element("code")
            result.text = content
        return result, *m.span()


class _Script(InlineProcessor):
    def __init__(self, pattern: str, tag: str) -> None:
        super().__init__(pattern)
        self.tag = tag

    def handleMatch(self, m: re.Match[str], data: str):  # type: ignore[override]
        result = Element(self.tag)
        result.text = next(group for group in m.groups() if group)
        return result, *m.span()


class _Directive(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        def stashed(m: re.Match[str]) -> str:
            place = self.md.htmlStash.store(mathml(m[2], display=True))
            return f"\n{m[1]}{place}\n\n"

        return DIRECTIVE.sub(stashed, "\n".join(lines)).split("\n")


class Mathematics(Extension):
    """Python-Markdown that knows the roles and the directive of reST that we use."""

    def extendMarkdown(self, md: Markdown) -> None:
        # Before code spans and escapes, after fenced code.
        md.inlinePatterns.register(_Role(ROLE, md), "role", 200)
        # After code, links and HTML, before underscores are emphasis; a power may have
        # letters with subscripts in it.
        md.inlinePatterns.register(_Script(SUPERSCRIPT, "sup"), "superscript", 72)
        md.inlinePatterns.register(_Script(SUBSCRIPT, "sub"), "subscript", 71)
        md.preprocessors.register(_Directive(md), "directive", 22)


def on_config(config: MkDocsConfig) -> None:
    """Adds the extension, for pages and for docstrings alike."""
    config.markdown_extensions.append(Mathematics())  # type: ignore[arg-type]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> None:
    """Fails the build where a page shows markup in place of what it means."""
    del config
    left = unconverted(output)
    if left:
        raise PluginError(f"{page.file.src_uri} shows markup as it is written: {left}")


def unconverted(html: str) -> list[str]:
    """The lines of a page that show markup, in code none but the mathematics."""
    shown = [line for line in html.splitlines() if MATHEMATICS.search(line)]
    text = CODE.sub(r"<\1>", html)
    return shown or [x for x in text.splitlines() if MARKUP.search(x.lstrip())]


def mathml(latex: str, *, display: bool) -> str:
    """A formula for the page; raises where there is a command that is not known."""
    return MATHML.convert_with_local_state(latex.strip(), displaystyle=display)
