"""The site shows the mathematics of docstrings, which is written in reST."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

markdown = pytest.importorskip("markdown", reason="needs the extra docs")
pytest.importorskip("math_core", reason="needs the extra docs")
pytest.importorskip("mkdocs", reason="needs the extra docs")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mathematics():
    path = ROOT / "docs/mathematics.py"
    spec = importlib.util.spec_from_file_location("mathematics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rendered(mathematics):
    """Markdown as the site renders it, as a tree."""
    extensions = ["tables", "fenced_code", mathematics.Mathematics()]

    def render(text):
        html = markdown.markdown(text, extensions=extensions)
        assert not mathematics.unconverted(html)
        html = html.replace("&ApplyFunction;", "")
        return ElementTree.fromstring(f"<page>{html}</page>")

    return render


def formulas(tree):
    return [
        ("".join(each.itertext()), each.get("display", "inline"))
        for each in tree.iter("math")
    ]


def test_a_role_is_a_formula_within_its_sentence(rendered):
    tree = rendered("Candidates :math:`θ_k = μ\n+ δ_k`, *and* :math:`\\mathrm{a\\_b}`.")
    assert formulas(tree) == [("θk=μ+δk", "inline"), ("a_b", "inline")]
    (paragraph,) = tree
    assert [child.tag for child in paragraph] == ["math", "em", "math"]
    assert tree.find(".//msub/mi").text == "θ"


@pytest.mark.parametrize(
    "head", [" x_1\n    + y", "\n    x_1\n    + y", "\n\n    x_1 + y"]
)
def test_a_directive_is_a_formula_between_its_neighbours(head, rendered):
    tree = rendered(f"Before.\n\n.. math::{head}\n\nAfter.")
    assert formulas(tree) == [("x1+y", "block")]
    assert [child.tag for child in tree] == ["p", "math", "p"]


def test_a_directive_within_a_list_stays_there(rendered):
    text = "1.  *One*,\n\n    .. math::\n      x,\n\n    rest.\n\n2.  *Two* :math:`y`."
    (items,) = rendered(text)
    assert [formulas(item) for item in items] == [[("x,", "block")], [("y", "inline")]]


def test_a_function_is_shown_as_code_and_code_as_it_is(rendered):
    tree = rendered("Use :func:`tell`.\n\n```\nx_1 `y`\n```")
    assert [code.text for code in tree.iter("code")] == ["tell", "x_1 `y`\n"]


@pytest.mark.parametrize(
    "shown",
    [
        "<p>with :math:<code>x</code></p>",
        "<p>.. math:: x</p>",
        "<pre><code>.. math::\n</code></pre>",
        "<p>the ``value of it</p>",
        "<p>mean of all.\n2. <em>Amplify</em></p>",
        "<p>see :func:<code>tell</code></p>",
    ],
)
def test_markup_that_is_left_is_found(shown, mathematics):
    right = "<p>As 2. is no item:\n<code>`x`</code></p>"
    assert len(mathematics.unconverted(f"{right}\n{shown}")) == 1
    assert not mathematics.unconverted(right)


def test_every_formula_of_the_package_can_be_shown(mathematics):
    texts = [path.read_text() for path in (ROOT / "qiaso_jax").rglob("*.py")]
    inline = [m[1] for text in texts for m in re.finditer(":math:`([^`]+)`", text)]
    display = [m[2] for text in texts for m in mathematics.DIRECTIVE.finditer(text)]
    assert len(inline) == sum(text.count(":math:") for text in texts) > 20
    assert len(display) == sum(text.count(".. math::") for text in texts) > 5
    for latex in inline + display:
        assert mathematics.mathml(latex, display=True).startswith("<math")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as they are built."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    built = subprocess.run(
        [*command, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.html")}


@pytest.mark.slow
def test_the_site_shows_the_formulas_of_qiaso(site):
    texts = [
        ElementTree.fromstring(math.replace("&ApplyFunction;", "")).itertext()
        for math in re.findall("<math.*?</math>", site["optimizers/index.html"])
    ]
    shown = {"".join(text) for text in texts}
    assert {"θk=μ+δk", "∑kwkδk", "pt=p0·rt/s=p0e−αt"} <= shown


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    for name, html in site.items():
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*(?:src|href)=.?(https?:[^ >]+)", html
        )
        assert loaded == [], name
