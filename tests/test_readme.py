import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from markdown_it import MarkdownIt

import qiaso_jax

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_the_examples_learn():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    weights, nodes, search = blocks
    exec(weights.replace("print(", "report = ("), names)
    expected_loss, effective_candidates = names["report"]
    assert expected_loss < 0.1
    assert 1 < effective_candidates < 100
    exec(nodes.replace("print(", "report = ("), names)
    assert names["report"] < 0.1
    exec(search.replace("print(", "report = ("), names)
    x, message = names["report"]
    assert message == "The target is reached."
    assert abs(x["a"] - 1) < 1e-2


def test_gradients_as_updates_climb_and_the_hybrid_descends():
    def loss(params):
        return jnp.sum(params**2)

    def loss_after(tx, updates):
        params, state = jnp.ones(3), tx.init(jnp.ones(3))
        for _ in range(5):
            given = jax.grad(loss)(params) if updates == "gradients" else None
            given, state = tx.update(given, state, params, value_fn=loss)
            params = optax.apply_updates(params, given)
        return loss(params)

    before = loss(jnp.ones(3))
    assert loss_after(qiaso_jax.qiaso(), "gradients") > before
    assert loss_after(qiaso_jax.qiaso(), None) < before
    hybrid = optax.chain(optax.adam(1e-3), qiaso_jax.qiaso())
    assert loss_after(hybrid, "gradients") < before


def test_it_is_shown_as_it_is_meant():
    """No markup is left, every row fills its table, every link leads somewhere."""
    text = README.read_text()
    html = MarkdownIt("commonmark").enable("table").render(text)
    prose = re.sub(r"<(pre|code)>.*?</\1>|<pre>.*?</pre>", "", html, flags=re.DOTALL)
    assert not re.findall(r".*(?:`|\*\*|\]\(|\|).*", re.sub(r"<[^>]*>", "", prose))
    for table in re.findall("<table>.*?</table>", html, re.DOTALL):
        rows = re.findall("<tr>.*?</tr>", table, re.DOTALL)
        cells = [[c != "" for c in re.findall("<t[hd].*?>(.*?)</t", r)] for r in rows]
        assert all(all(row) and len(row) == len(cells[0]) for row in cells)
    for target in re.findall('(?:href|src)="(.*?)"', html):
        assert (ROOT / target).exists(), target
