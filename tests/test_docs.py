"""The site shows the mathematics of docstrings, and what is wrong with it is found."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import qiaso_jax

markdown = pytest.importorskip("markdown", reason="needs the extra docs")
pytest.importorskip("math_core", reason="needs the extra docs")
defaults = pytest.importorskip("mkdocs.config.defaults", reason="needs the extra docs")

ROOT = Path(__file__).parents[1]


def hook(name):
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mathematics():
    return hook("mathematics")


@pytest.fixture(scope="module")
def checks():
    return hook("checks")


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
    ("text", "shown"),
    [
        ("of p_{t+1}, σ_0 and L_nk.", "of p[t+1], σ[0] and L[nk]."),
        ("e^{−η L_k}/Z and 2^(N − 1)", "e(−η L[k])/Z and 2(N − 1)"),
        ("10^1.3, x^−2. d̂_n' δ_i^(k)", "10(1.3), x(−2). d̂[n]' δ[i](k)"),
        (
            "T_max, fold_in, a_b_c, _x_1, ^2 [^1]",
            "T_max, fold_in, a_b_c, _x_1, ^2 [^1]",
        ),
    ],
)
def test_scripts_in_a_sentence_are_shown_and_names_left(text, shown, rendered):
    (paragraph,) = rendered(text)
    html = ElementTree.tostring(paragraph, encoding="unicode")
    signs = {"<sub>": "[", "</sub>": "]", "<sup>": "(", "</sup>": ")", "p>": ""}
    for tag, sign in signs.items():
        html = html.replace(tag, sign)
    assert html.strip("<>/") == shown
    (code, link) = rendered("`p_t` [x](p_t/e^2)").find("p")
    assert code.text == "p_t"
    assert link.get("href") == "p_t/e^2"


@pytest.mark.parametrize(
    "shown",
    [
        "<p>with :math:<code>x</code></p>",
        "<p>.. math:: x</p>",
        "<pre><code>.. math::\n</code></pre>",
        "<p>the ``value of it</p>",
        "<p>mean of all.\n2. <em>Amplify</em></p>",
        "<p>see :func:<code>tell</code></p>",
        "<p>of x_ {t} and max_{t}</p>",
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


def test_a_table_names_its_command_or_is_found(tmp_path, monkeypatch):
    hooks = hook("hooks")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    table = tmp_path / "table.md"
    table.write_text("# A title\n\n| a |\n\nWritten by `python -m\nbenchmarks.x`.\n")
    assert hooks.title(table) == "A title"
    assert hooks.command(table) == "`python -m benchmarks.x`"
    table.write_text("| a |\n")
    with pytest.raises(
        hooks.PluginError, match=r"table\.md does not say which command"
    ):
        hooks.command(table)


def test_what_the_readme_leads_to_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('[a](a.md#x) ![b](b/c.svg) <img src="d.png"> <a href="http://e">')
    assert hook("hooks").linked(page) == [
        tmp_path / each for each in ("a.md", "b/c.svg", "d.png")
    ]


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


RIGHT = """<h1 id="top">1</h1> <a href="#top"> <a href="page/#here"> <a href="page">
<a href="https://elsewhere/#x"> <a href="mailto:x"> <img src="page/../page/a%20b.svg">
<link href="page/style.css"> <source srcset="page/style.css 1x, page/style.css 2x">"""


@pytest.mark.parametrize(
    ("html", "wrong"),
    [
        ("", []),
        ('<a href="other/">', ["index.html links to other/, which is not there"]),
        ('<img src="c.svg">', ["index.html links to c.svg, which is not there"]),
        (
            '<a href="page/#there">',
            ["index.html links to page/#there, where there is no such anchor"],
        ),
        ('<a href="#bottom">', ["index.html links to #bottom, where there is no such"]),
        ('<script src="https://cdn/x.js">', ["index.html loads https://cdn/x.js"]),
        ('<link href="//fonts/x.css">', ["index.html loads //fonts/x.css"]),
        ('<source srcset="page, http://x/y 2x">', ["index.html loads http://x/y"]),
        ('<iframe src="HTTPS://x">', ["index.html loads HTTPS://x"]),
    ],
)
def test_what_a_page_lacks_or_loads_is_found(html, wrong, checks, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page/a b.svg").write_text("")
    (tmp_path / "page/style.css").write_text("p {background: url(data:x)}")
    page = '<h1 id="here">2</h1> <a href="../#top"> <a href="/page/#here">'
    (tmp_path / "page/index.html").write_text(page)
    (tmp_path / "index.html").write_text(RIGHT + html)
    pages = checks.read(tmp_path)
    found = [*checks.dead(tmp_path, pages), *checks.from_elsewhere(tmp_path, pages)]
    assert len(found) == len(wrong)
    assert all(line.startswith(each) for line, each in zip(found, wrong, strict=True))


@pytest.mark.parametrize("rule", ["@import '//x/y'", "p {x: url(https://x/y)}"])
def test_a_style_that_loads_from_elsewhere_is_found(rule, checks, tmp_path):
    (tmp_path / "a.css").write_text(rule)
    (line,) = checks.from_elsewhere(tmp_path, {})
    assert line in ("a.css loads //x/y", "a.css loads https://x/y")


def test_a_public_name_that_is_not_under_api_is_found(checks):
    page = checks.Links('<h2 id="qiaso_jax.ask"><h2 id="qiaso_jax.tell.x">')
    missing = list(checks.undocumented(["ask", "tell"], [page]))
    assert missing == ["qiaso_jax.tell is on no page under API"]
    assert checks.public() == qiaso_jax.__all__


def test_the_reference_is_the_pages_under_api(checks):
    config = defaults.MkDocsConfig()
    nested = [{"A": "a.md"}, {"B": ["b/c.md", {"D": "d/index.md"}]}]
    config.load_dict({"nav": [{"Start": "index.md"}, {"API": nested}]})
    built = ["a/index.html", "b/c/index.html", "d/index.html"]
    assert checks.reference(config) == built
