import json
import os

import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.coco import __main__ as coco
from benchmarks.coco.methods import METHODS
from benchmarks.coco.problems import (
    TARGETS,
    BudgetSpent,
    Counted,
    Task,
    differences,
    share,
)

pytestmark = pytest.mark.slow


def test_the_targets():
    assert len(TARGETS) == 51
    assert share(np.inf) == 0
    assert share(100.0) == pytest.approx(1 / 51)
    assert share(1.5) == pytest.approx(10 / 51)
    assert share(0.0) == 1


def test_a_counted_function_notes_its_best_and_ends():
    counted = Counted(lambda x: x, [2, 3])
    for x in (5.0, 7.0, 3.0):
        assert counted(x) == x
    assert counted.noted == [5.0, 3.0]
    with pytest.raises(BudgetSpent):
        counted(0.0)
    assert counted.best == 3.0


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_searches_the_sphere(method):
    task = Task(method, 2, 1, (1, 2), 300, [20, 300])
    found = np.array(differences(task))
    assert found.shape == (2, 2)
    assert (found >= -1e-9).all()
    assert (found[:, 1] <= found[:, 0]).all()
    assert (found[:, 1] < (30 if method == "random search" else 1)).all()


def test_the_command(tmp_path, capsys):
    environment = dict(os.environ)
    command = coco.Command(
        output=tmp_path,
        dimensions=(2,),
        methods=("random search", "cma"),
        instances=(1, 2),
        evaluations=(10, 40),
        processes=1,
    )
    coco.main(command)
    page = (tmp_path / "table.md").read_text()
    assert page in capsys.readouterr().out
    assert page.count("| all |") == 2
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["runs"]) == 2 * 24
    assert {"cma", "coco-experiment"} <= set(results["versions"])
    shares = [
        share(row[-1])
        for run in results["runs"]
        if run["method"] == "cma"
        for row in run["differences"]
    ]
    assert f"| {np.mean(shares):.3f} |" in page
    # The flags of its workers are not those of programs that are started later.
    assert dict(os.environ) == environment


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"methods": ("simplex",)}, "--methods must be among"),
        ({"instances": (3, 2)}, "--instances must be the first and the last one"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        coco.main(coco.Command(output=tmp_path, **given))
