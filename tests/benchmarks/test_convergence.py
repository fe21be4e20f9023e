import json

import numpy as np
import pytest
import scipy.optimize

from benchmarks import convergence

pytestmark = pytest.mark.slow


def test_the_functions():
    x = np.random.default_rng(0).normal(size=4)
    weights = np.array([1, 1e2, 1e4, 1e6])
    assert convergence.sphere(x, np) == pytest.approx(x @ x)
    assert convergence.rosenbrock(x, np) == pytest.approx(scipy.optimize.rosen(x))
    assert convergence.ellipsoid(x, np) == pytest.approx(weights @ x**2)


def test_what_is_not_found_takes_infinitely_many():
    assert convergence.median([3, None, 5]) == 5
    assert convergence.median([None, None, 5]) == np.inf


def test_the_command(monkeypatch, tmp_path, capsys):
    values = [0.1, 0.2, 4.0]
    monkeypatch.setattr(convergence, "FUNCTIONS", {"sphere": convergence.sphere})
    monkeypatch.setattr(convergence, "rastrigin_values", lambda *_: values)
    command = convergence.Command(
        output=tmp_path, seeds=3, evaluations=3000, rastrigin_evaluations=(100,)
    )
    convergence.main(command)
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    assert "| 100 | 0.2 | 2/3 |" in text
    [run] = json.loads((tmp_path / "results.json").read_text())["runs"]
    ours, theirs = run["minimize"], run["cma"]
    # Ten candidates a step, both; pycma evaluates its last mean, too.
    assert all(number % 10 == 0 for number in ours)
    assert all(number % 10 in (0, 1) for number in theirs)
    assert all(500 < number < 3000 for number in ours + theirs)
    ratio = np.median(ours) / np.median(theirs)
    line = f"| sphere | {np.median(ours):,.0f} | {np.median(theirs):,.0f} | {ratio:.2f}"
    assert line in text


def test_too_few_evaluations_are_told():
    starts = np.ones((2, 10))
    assert convergence.pycma(convergence.sphere, starts, 50) == [None, None]


def test_stored_table_is_what_the_stored_numbers_give():
    folder = convergence.Command().output
    results = json.loads((folder / "results.json").read_text())
    text = convergence.page(results["runs"], results["rastrigin"])
    assert text == (folder / "table.md").read_text()
