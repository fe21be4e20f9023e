import json
from concurrent.futures import ThreadPoolExecutor

import cocoex
import numpy as np
import pytest

from benchmarks.coco import noise
from benchmarks.coco.noise import NOISES, POINTS, Noisy, Task

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_what_it_is_said_to_be(kind):
    problem = cocoex.BareProblem("bbob", 1, 2, 1)
    x = np.array([1.0, -2.0])
    noisy, above = Noisy(problem, kind, 3), problem(x) - problem.best_value()
    values = np.array([noisy(x) for _ in range(4000)]) - problem.best_value()
    assert noisy.true(x) == pytest.approx(above)
    z = values - above if kind == "additive" else np.log(values / above)
    # Four standard errors of a mean, and of a deviation.
    assert abs(z.mean()) < 4 / np.sqrt(4000)
    assert abs(z.std() - 1) < 4 / np.sqrt(8000)
    again = Noisy(problem, kind, 3)
    assert again(x) - problem.best_value() == pytest.approx(values[0])


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(noise, "FUNCTIONS", {1: "sphere"})
    monkeypatch.setattr(
        noise,
        "ProcessPoolExecutor",
        lambda processes, context, initializer: ThreadPoolExecutor(1),
    )
    command = noise.Command(
        output=tmp_path, dimensions=(2,), instances=3, evaluations=150
    )
    noise.main(command)
    text = (tmp_path / "noise.md").read_text()
    assert text in capsys.readouterr().out
    assert "3 instances" in text
    assert "150·D" in text
    runs = json.loads((tmp_path / "noise.json").read_text())["runs"]
    assert [run["noise"] for run in runs] == list(NOISES)
    for run in runs:
        for name in POINTS:
            values = run["differences"][name]
            assert len(values) == 3
            # The start is 4 or farther from the optimum, in squares.
            assert all(0 <= value < 4 for value in values)
            q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
            assert f"| {median:.2g} ({q1:.2g} to {q3:.2g}) |" in text
        x, mean, noisy = (np.array(run["differences"][name]) for name in POINTS[:3])
        assert f"| {np.sum(mean < x)}/3 | {np.sum(noisy < mean)}/3 |" in text


def test_stored_table_is_what_the_stored_numbers_give():
    folder = noise.Command().output
    runs = json.loads((folder / "noise.json").read_text())["runs"]
    tasks = [Task(*(run[name] for name in Task._fields)) for run in runs]
    text = noise.page(tasks, [run["differences"] for run in runs])
    assert text == (folder / "noise.md").read_text()
