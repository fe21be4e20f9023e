"""Figures 2, 5 and 6: what is kept is true, and verdicts follow from it."""

import copy
import io
import json

import numpy as np
import pytest

from benchmarks.paper.figures import figure2, figure5, figure6, rastrigin_traces
from benchmarks.paper.runs import rounded
from benchmarks.paper.study import Study

pytestmark = pytest.mark.slow


def measured(module, tmp_path_factory):
    folder = tmp_path_factory.mktemp(module.__name__.rpartition(".")[2])
    content = module.measure(Study("smoke", results=folder, work=folder))
    return json.loads(json.dumps(rounded(content), allow_nan=False))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return measured(figure2, tmp_path_factory)


@pytest.fixture(scope="module")
def fifth(tmp_path_factory):
    return measured(figure5, tmp_path_factory)


@pytest.fixture(scope="module")
def sixth(tmp_path_factory):
    return measured(figure6, tmp_path_factory)


def words(module, content):
    return [verdict.word for verdict in module.section(content).verdicts]


def check_section(module, content, name):
    """One small figure, and verdicts fit for a Markdown table."""
    section = module.section(content)
    assert section.verdicts
    for verdict in section.verdicts:
        assert "|" not in verdict.claim + verdict.found
    (figure,) = section.figures.values()
    assert list(section.figures) == [f"{name}.svg"]
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    assert len(drawn.getvalue()) < 300_000


class TestFigure2:
    def test_section(self, second):
        check_section(figure2, second, "figure2")

    def test_forms_spend_the_budget(self, second):
        for form in second["forms"].values():
            spent = form["population"] * form["iterations"]
            assert 0.9 * second["evaluations"] < spent <= second["evaluations"]
            assert len(form["last_expected"]) == second["seeds"]
            assert np.all(np.array(form["best"][1]) <= np.array(form["expected"][1]))

    def test_losses_so_far_never_rise(self, second):
        for decays in second["tunnelling"].values():
            assert [one["decay"] for one in decays] == second["decays"]
            for one in decays:
                curves = np.array(one["best"])
                assert np.all(np.diff(curves, axis=1) <= 0)
                assert np.all(np.diff(curves, axis=0) >= 0)
                last = np.median(one["last"])
                np.testing.assert_allclose(curves[1, -1], last, rtol=3e-5)

    def test_rising_steps_are_counted(self):
        expected = np.array([[3.0, 2.0, 2.5, 1.0, 1.0], [5.0, 6.0, 7.0, 8.0, 9.0]])
        kept = figure2.losses_kept((expected, expected - 1), 10)
        np.testing.assert_array_equal(kept["rising"], [0.25, 1])
        np.testing.assert_array_equal(kept["best_ever"], [0, 4])
        assert kept["population"] == 2

    def test_verdicts_follow_the_numbers(self, second):
        assert words(figure2, second)[0] == "not reproduced"
        changed = copy.deepcopy(second)
        changed["forms"]["working"] |= {"rising": [0.0, 0.0], "last_expected": [1, 1]}
        assert words(figure2, changed)[:2] == ["reproduced by another method"] * 2
        changed["forms"]["faithful"] |= {"rising": [0.0, 0.0], "last_expected": [1, 1]}
        assert words(figure2, changed)[:2] == ["reproduced"] * 2

    def test_decay_is_judged_by_pairs(self, second):
        changed = copy.deepcopy(second)
        fastest, slowest = changed["tunnelling"]["0.5"]
        fastest["last"], slowest["last"] = [10.0, 100.0], [9.0, 98.9]
        verdict = figure2.section(changed).verdicts[-1]
        assert verdict.word == "reproduced"
        assert "is deeper" in verdict.found
        fastest["last"], slowest["last"] = slowest["last"], fastest["last"]
        verdict = figure2.section(changed).verdicts[-1]
        assert verdict.word == "not reproduced"
        assert "less deep" in verdict.found
        slowest["last"] = fastest["last"]
        assert "no different" in figure2.section(changed).verdicts[-1].found


class TestFigure5:
    def test_section(self, fifth):
        check_section(figure5, fifth, "figure5")

    def test_counts_are_the_candidates_inside(self):
        where = np.array([[0.1, 0.1], [0.1, 0.12], [4.9, -5.1], [30.0, 0.0]])
        kept = figure5.counted(where)
        counts = np.array([row.split() for row in kept["counts"]], int)
        assert counts.shape == (figure5.BINS, figure5.BINS)
        assert counts.sum() == 3
        assert kept["cells"] == 2 / figure5.BINS**2
        assert kept["minima"] == 2 / 121
        assert kept["global"] == 0.5

    def test_printed_settings_stay_where_they_started(self, fifth):
        printed, working = fifth["panels"].values()
        assert printed["minima"] < 0.05
        assert working["minima"] > 0.5
        assert printed["candidates"] == fifth["steps"] * fifth["seeds"] * 30

    def test_verdicts_follow_the_numbers(self, fifth):
        assert words(figure5, fifth) == ["reproduced by another method", "not measured"]
        changed = copy.deepcopy(fifth)
        printed, working = changed["panels"].values()
        working["minima"] = 0.1
        assert words(figure5, changed)[0] == "not reproduced"
        printed["minima"] = 0.9
        changed["panels"]["faithful, wider"] = printed | {"cells": 0.9}
        assert words(figure5, changed) == ["reproduced", "reproduced"]
        changed["panels"]["faithful, wider"]["cells"] = 0.0
        assert words(figure5, changed)[1] == "not reproduced"


class TestFigure6:
    def test_section(self, sixth):
        check_section(figure6, sixth, "figure6")

    def test_working_arrives_and_faithful_does_not(self, sixth):
        assert sixth["reached"]["faithful"]["share"] == 0
        # 0.77 of many starts arrive: of 100, four standard errors below.
        settings, num_steps = figure6.searches(figure6.SHORT)[figure6.SHORT_WORKING]
        assert figure6.reached(settings, num_steps, 100)["share"] > 0.6
        all_arrive = copy.deepcopy(sixth)
        all_arrive["reached"][figure6.SHORT_WORKING]["share"] = 1.0
        assert words(figure6, all_arrive) == ["reproduced by another method"]

    def test_paths_start_at_the_corners(self, sixth):
        for kept in sixth["paths"].values():
            centres = np.array(kept["centres"])
            assert centres.shape == (4, figure6.SHORT, 2)
            np.testing.assert_allclose(centres[:, 0], figure6.CORNERS, rtol=1e-5)
            assert len(kept["candidates"]) == 4

    def test_verdicts_follow_the_numbers(self, sixth):
        changed = copy.deepcopy(sixth)
        reached = changed["reached"]
        reached[figure6.WITHOUT] = reached["faithful"]
        reached[figure6.TUNNELLING[1]] = reached["faithful"]
        assert words(figure6, changed)[1] == "not reproduced"
        reached[figure6.TUNNELLING[1]] = reached["faithful"] | {"share": 1.0}
        assert words(figure6, changed)[1] == "reproduced by another method"
        reached["faithful"] = reached["faithful"] | {"share": 1.0}
        assert words(figure6, changed) == ["reproduced", "reproduced"]


def test_thinned_steps_begin_with_the_first_and_end_with_the_last():
    for logarithmic in (False, True):
        where = rastrigin_traces.first_to_last(1000, 20, logarithmic)
        assert where[0] == 0
        assert where[-1] == 999
        assert len(where) <= 20
        assert np.all(np.diff(where) > 0)
    assert rastrigin_traces.first_to_last(3, 20, False).tolist() == [0, 1, 2]
