import contextlib
import dataclasses
import json
import os
import shlex
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cocoex
import jax
import numpy as np
import pytest
import tyro

import qiaso_jax
from benchmarks import cli
from benchmarks.cli import UserError
from benchmarks.coco import __main__ as coco
from benchmarks.coco import ecdf, reference, tasks
from benchmarks.coco.methods import METHODS
from benchmarks.coco.problems import (
    NOISELESS,
    SUITES,
    TARGETS,
    Counted,
    Domain,
    Ended,
    box,
    opened,
    share,
)
from benchmarks.coco.tasks import Task, differences, measured

pytestmark = pytest.mark.slow


def test_the_targets():
    assert len(TARGETS) == 51
    assert share(np.inf) == 0
    assert share(100.0) == pytest.approx(1 / 51)
    assert share(1.5) == pytest.approx(10 / 51)
    assert share(0.0) == 1


def counted(reports):
    return Counted(float, box(1), reports, true=lambda x: 2 * x, optimum=1.0)


def test_a_counted_function_notes_its_best_and_ends():
    problem = counted([2, 3])
    for x in (5.0, 7.0):
        assert problem(x) == x
    assert problem.differences == [9.0, 9.0]
    assert problem(3.0) == 3.0
    with pytest.raises(Ended):
        problem(0.0)
    assert problem.differences == [9.0, 5.0]


def test_a_counted_function_ends_when_all_targets_are_reached():
    problem = counted([1, 2, 9])
    problem(4.0)
    problem(0.5)
    with pytest.raises(Ended):
        problem(4.0)
    assert problem.differences == [7.0, 0.0, 0.0]


def test_a_domain():
    domain = Domain(np.array([0, -5]), np.array([1, 5]), np.array([True, False]))
    # As many numbers round to 0 as to 1.
    np.testing.assert_array_equal(domain.edges, [[-0.5, -5], [1.5, 5]])
    np.testing.assert_array_equal(domain.start, [0.5, 0])
    np.testing.assert_allclose(domain.sigma, [0.4, 2])


@pytest.mark.parametrize(("suite", "dimension"), [("bbob", 5), ("bbob-largescale", 20)])
def test_the_optimum_is_that_of_bbob(suite, dimension):
    for function in SUITES[suite].groups["all"]:
        problem = cocoex.BareProblem("bbob", function, 5, 71)
        (own,) = opened(suite, function, dimension, [71], [1])
        own(np.full(dimension, 1.0))
        value = own._fun(np.full(dimension, 1.0))
        assert own.differences[0] == pytest.approx(value - problem.best_value())


def test_nothing_is_below_the_optimum_among_integers():
    rng = np.random.default_rng(0)
    for function in SUITES["bbob-mixint"].groups["all"]:
        (own,) = opened("bbob-mixint", function, 5, [2], [100])
        assert own.domain.integers.tolist() == [True] * 4 + [False]
        assert own.domain.upper.tolist() == [1, 3, 7, 15, 5]
        for _ in range(100):
            own(rng.uniform(*own.domain.edges))
        assert own.differences[0] > -1e-9


def test_values_without_noise_are_those_that_coco_logs(tmp_path, capfd):
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 6, (len(NOISELESS), 5))
    # Those of bbob have a penalty beyond the box, which COCO counts as noise.
    has_penalty = np.isin([*NOISELESS.values()], [7, 17, 21])
    points[has_penalty] = points[has_penalty].clip(-5, 5)
    own = []
    with contextlib.chdir(tmp_path):
        observer = cocoex.Observer("bbob", "result_folder: logged")
        for function, x in zip(NOISELESS, points, strict=True):
            (problem,) = opened("bbob-noisy", function, 5, [3], [1])
            logs: Any = problem._fun
            logs.observe_with(observer)
            problem(x)
            logs.free()
            own.append(problem.differences[0])
    logged = []
    for function in NOISELESS:
        (path,) = tmp_path.rglob(f"bbobexp_f{function}_DIM5.dat")
        (line,) = np.loadtxt(path, comments="%", ndmin=2)
        logged.append(line[2])
    np.testing.assert_allclose(own, logged, rtol=1e-8)


# Variants of minimize differ in fields of a plan, and take seconds to compile.
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(
            name, marks=pytest.mark.nightly if name.startswith("minimize,") else ()
        )
        for name in METHODS
    ],
)
def test_every_method_searches_the_sphere(method):
    task = Task("bbob", method, 2, 1, (1, 2), [20, 300])
    with jax.numpy_rank_promotion("allow"):  # evosax promotes ranks
        found = np.array(differences(task))
    assert found.shape == (2, 2)
    assert (found >= -1e-9).all()
    assert (found[:, 1] <= found[:, 0]).all()
    assert (found[:, 1] < (30 if method == "random search" else 1)).all()


@pytest.mark.parametrize("method", ["cma", "differential evolution", "Nelder-Mead"])
def test_integers_are_searched(method):
    (found,) = differences(Task("bbob-mixint", method, 5, 1, (1,), [1, 400]))
    # The start is not within 4 of the optimum, which is no corner.
    assert 0 <= found[1] < 4 < found[0]


@pytest.mark.parametrize(
    ("suite", "function", "dimension"),
    [
        ("bbob", 15, 2),
        pytest.param("bbob-mixint", 3, 5, marks=pytest.mark.nightly),
        pytest.param("bbob-largescale", 10, 20, marks=pytest.mark.nightly),
        pytest.param("bbob-largescale", 1, 320, marks=pytest.mark.nightly),
    ],
)
def test_searches_at_once_are_those_of_minimize(suite, function, dimension):
    given = suite, function, dimension, (1, 2), [50, 171, 300]
    at_once, one_by_one = opened(*given), opened(*given)
    METHODS["minimize"](at_once)
    for problem in one_by_one:
        domain = problem.domain
        has_integers = domain.integers.any()
        with contextlib.suppress(Ended):
            qiaso_jax.minimize(
                problem,
                domain.start,
                sigma=domain.sigma,
                bounds=(domain.lower, domain.upper) if has_integers else None,
                integers=domain.integers if has_integers else None,
                max_evaluations=300,
                workers=map,
                key=problem.seed,
            )
    for own, other in zip(at_once, one_by_one, strict=True):
        np.testing.assert_allclose(own.differences, other.differences, rtol=1e-6)


def test_evaluations_of_the_figure_and_of_the_tables():
    reports = coco.reports(5, (1000, 70))
    assert reports == sorted(set(reports))
    assert {5, 50, 350, 500, 5000} <= set(reports)
    assert len(reports) == 17


@pytest.mark.nightly
def test_processes_have_flags_of_their_own():
    environment = dict(os.environ)
    task = Task("bbob", "random search", 2, 1, (1,), [1, 40])
    assert list(measured([task, task], 2)) == [differences(task)] * 2
    assert dict(os.environ) == environment


def test_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        tasks,
        "ProcessPoolExecutor",
        lambda processes, context, initializer: ThreadPoolExecutor(1),
    )
    command = coco.Command(
        output=tmp_path,
        dimensions=(2,),
        methods=("random search", "cma"),
        functions=(1, 3, 8),
        instances=(1, 2),
        evaluations=(10, 40),
    )
    coco.main(command)
    page = (tmp_path / "table.md").read_text()
    assert page in capsys.readouterr().out
    assert page.count("| all |") == page.count("| separable f1-f5 |") == 2
    assert "multimodal" not in page
    text = (tmp_path / "results.json").read_text()
    content = json.loads(text)
    assert len(content["runs"]) == text.count('{"suite"') == 2 * 3
    assert {"cma", "coco-experiment"} <= set(content["versions"])
    shares = {
        method: np.array(
            [
                share(row[-1])
                for run in content["runs"]
                if run["method"] == method
                for row in run["differences"]
            ]
        )
        for method in command.methods
    }
    own, rival = shares.values()
    assert f"| {rival.mean():.3f} |" in page
    error = np.std(own - rival, ddof=1) / np.sqrt(6)
    apart = np.mean(own - rival)
    assert f"| {own.mean():.3f} ({apart:+.3f} ± {error:.3f}) |" in page
    assert coco.page(content) == page
    assert (tmp_path / "ecdf.svg").exists()

    # Kept is what is stored, whatever it is.
    for run in content["runs"]:
        run["differences"] = [[2.0 for _ in row] for row in run["differences"]]
    (tmp_path / "results.json").write_text(json.dumps(content))
    coco.main(dataclasses.replace(command, again=("random search",)))
    again = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in again["runs"]] == (
        3 * ["random search"] + 3 * ["cma"]
    )
    for run in again["runs"]:
        assert (run["differences"][0][0] == 2) == (run["method"] == "cma")
    written = {key: content[key] for key in ("date", "revision")}
    assert again["kept"] == {"cma": written}
    assert content["date"][:10] in coco.page(again)
    assert "--again 'random search'" in coco.page(again)
    with pytest.raises(UserError, match="no run of cma on f4 in 2-D"):
        coco.main(
            dataclasses.replace(command, again=("random search",), functions=(4,))
        )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"methods": ("simplex",)}, "--methods must be among"),
        ({"instances": (3, 2)}, "--instances must be the first and the last one"),
        ({"functions": (25,)}, "--functions must be among 1, 2,"),
        ({"suite": "bbob-noisy", "functions": (116,)}, "--functions must be among"),
        ({"dimensions": (80,)}, "--dimensions must be among 2, 3,"),
        ({"again": ("simplex",)}, "--again must be among"),
        ({"again": ("cma",)}, "--again needs the other methods' runs, in"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, given, sentence):
    with pytest.raises(UserError, match=sentence):
        coco.main(coco.Command(output=tmp_path, **given))


def test_the_figure_shows_what_is_stored():
    run = {"suite": "bbob", "dimension": 2, "reports": [2, 8]}
    rows = {
        (1, "a"): [[1e3, 1e-9], [1e3, 1e3]],
        (2, "a"): [[1e-9, 1e-9], [1e3, 1e3]],
        (1, "b"): [[1e3, 1e3], [1e3, 1e3]],
        (2, "b"): [[1e3, 1e-9], [1e3, 1e-9]],
    }
    runs = [
        run | {"function": function, "method": method, "differences": differences}
        for (function, method), differences in rows.items()
    ]
    settings = {"suite": "bbob", "dimensions": [2], "methods": ["a", "b"]}
    settings["instances"] = [3, 4]
    best = {"2": [[1.0] * 25 + [None] * 26, [3.0] * 51, [1.0] * 51]}
    drawn = ecdf.figure({"settings": settings, "runs": runs}, best)
    assert "2 functions, 2 instances" in drawn.get_supxlabel()
    (ax,) = drawn.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines == {
        "a": [[1, 0.25], [4, 0.5]],
        "b": [[1, 0], [4, 0.5]],
        "best of 2009": [[1, 25 / 102], [4, pytest.approx(76 / 102)]],
    }


def test_the_best_of_2009_is_read(tmp_path):
    lines = ["% a comment", "1 1e+03 1e+03 A 15 15", "7 16 16 B 2 15", "8.5 1e-08 0 A"]
    text = "\n".join(lines)
    (tmp_path / "bbob_f02_d05.dat").write_text(text)
    archive = tmp_path / "all.tar.gz"
    with tarfile.open(archive, "w:gz") as files:
        files.add(tmp_path / "bbob_f02_d05.dat", "some/bbob-bestalg_f02_d05.dat")
        files.add(tmp_path / "bbob_f02_d05.dat", "some/bbob-bestalg_f02_d05.tdat")
    # 16 is no target: 15.8 and all below need more.
    assert reference.read(archive) == {"5": [[7.0] * 4 + [8.5] * 47]}
    assert reference.needed(["1 1e2 1e2"]) == [1.0] + [None] * 50


def test_the_best_of_2009_is_what_was_published():
    # Tables of the workshop's papers: f20 in 5-D, to 10, 1, 0.1, ... and 1e-5, 1e-7.
    found = ecdf.stored()["5"][19]
    chosen = [found[i] for i in (5, 10, 15, 20, 25, 35, 45)]
    assert chosen == [16, 851, 38111, 51362, 54470, 54861, 55313]
    assert {len(functions) for functions in ecdf.stored().values()} == {24}


def test_a_table_says_how_it_is_typed():
    def said(settings):
        return cli.typed("benchmarks.coco", coco.Command, settings)

    settings = dataclasses.asdict(coco.Command())
    assert said(settings) == "python -m benchmarks.coco"
    typed = ["--dimensions", "2", "3", "--methods", "minimize", "cma, bipop"]
    given = tyro.cli(coco.Command, args=typed)
    settings = json.loads(json.dumps(dataclasses.asdict(given), default=str))
    assert shlex.split(said(settings)) == [
        *("python", "-m", "benchmarks.coco"),
        *typed,
    ]


def test_stored_tables_are_what_the_stored_numbers_give():
    folder = Path(coco.__file__).parents[1] / "results" / "coco"
    stored = sorted(folder.rglob("results.json"))
    assert stored
    for path in stored:
        content = json.loads(path.read_text())
        assert coco.page(content) == (path.parent / "table.md").read_text()
