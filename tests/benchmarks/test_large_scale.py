import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import large_scale

pytestmark = pytest.mark.slow


def test_ten_axes_are_long():
    size, height = 12, 1e-4
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(size, 10)))[0]
    fun = large_scale.long_axes(directions)
    scale = 10 ** np.linspace(0, 1.5, size)
    for along in directions.T:
        assert fun(along / scale) == pytest.approx(height, rel=1e-2)
    across = np.linalg.svd(directions.T)[2][-1]
    assert fun(across / scale) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("method", ["Sep-CMA-ES", "LM-MA-ES"])
def test_methods_of_evosax_begin_at_the_start_and_descend(method):
    search = large_scale.METHODS[method]
    # evosax relies on the promotion that this project's tests forbid.
    with jax.numpy_rank_promotion("allow"):
        first, last = (
            float(search(lambda x: ((x - 2) ** 2).sum(), number, np.full(12, 9.0), 0))
            for number in (11, 2_000)
        )
        # Of so many values the least is near −1, and the least of eleven is not.
        least = float(search(lambda x: jnp.sin(1e3 * x.sum()), 2_000, np.ones(12), 0))
    assert 200 < first < 12 * 7**2
    assert 0 <= last < 1
    assert -1 <= least < -1 + 1e-4


def test_the_stored_table_is_what_the_stored_numbers_give():
    folder = large_scale.Command().output
    content = json.loads((folder / "results.json").read_text())
    assert large_scale.page(content) == (folder / "table.md").read_text()


def test_the_command(monkeypatch, tmp_path, capsys):
    found = iter([1.0, 5.0, 2.0])
    monkeypatch.setattr(large_scale, "METHODS", {"ours": lambda *_: 3.0})
    monkeypatch.setattr(large_scale.jax, "jit", lambda _: lambda *_: next(found))
    monkeypatch.setattr(
        large_scale, "functions", lambda _: {"ellipsoid": large_scale.ellipsoid}
    )
    large_scale.main(large_scale.Command(output=tmp_path, dimension=10))
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "| ellipsoid | 2 |" in text
    [run] = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert run["values"] == [1.0, 5.0, 2.0]
