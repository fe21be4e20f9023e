import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.step_cost import __main__ as step_cost
from benchmarks.step_cost import (
    large,
    measure,
    methods,
    models,
    report,
    tables,
    targets,
)
from benchmarks.step_cost.methods import Job

HIDDEN = (4, 3)


@pytest.fixture
def model():
    return models.mlp(8, HIDDEN)


def row(*seconds, temporary=0, output=0):
    return {
        "seconds": float(np.median(seconds)),
        "seconds_of_rounds": list(seconds),
        "ratios": {"evaluation": 2.0},
        "temporary_bytes": temporary,
        "output_bytes": output,
        "compile_seconds": 1.0,
    }


def test_a_ratio_is_of_the_same_round():
    # The machine was ten times slower in the second round.
    assert measure.ratio([1, 10, 1.5], [2, 20, 3]) == 0.5


def test_exponents_are_those_of_powers():
    sizes = np.array([8, 30, 128])
    assert measure.exponent(sizes, 3e-3 * sizes**0.7) == pytest.approx(0.7)
    rows = {str(size): {"a": row(float(size) ** 2)} for size in sizes}
    rows["8"]["b"] = row(1.0)
    rows["30"]["b"] = {"skipped": "needs 20 GiB"}
    assert tables.of_axis(rows) == {"a": 2.0}


def test_few_candidates_do_not_count_for_exponents():
    rows = {str(k): {"a": row(max(k, 8.0))} for k in (2, 8, 30)}
    found = tables.exponents({"mlp": {"candidates": rows}}, {})
    assert found == {"K (mlp)": {"a": 1.0}}


def test_states_are_carried_from_step_to_step_and_seconds_are_of_one():
    job = Job(lambda x, batch: x + batch, lambda: jnp.zeros(()), jnp.ones(()), True, 5)
    program = measure.compiled(job)
    state, first = program.measured(job.init())
    state, _ = program.measured(state)
    assert float(state) == 10
    assert first > 0
    kept = measure.compiled(job._replace(carries=False))
    assert float(kept.measured(jnp.full((), 3.0))[0]) == 3


def test_what_needs_more_memory_is_not_run():
    job = Job(lambda x, _: 2 * x, lambda: jnp.zeros(2**18), jnp.zeros(()))
    assert measure.compiled(job, memory=1).about["output_bytes"] == 2**20
    rows = measure.measured(
        {"large": lambda: job, "unit": lambda: job._replace(init=lambda: jnp.zeros(1))},
        ["unit"],
        measure.Limits(rounds=1, longest=1.0, memory=2**-10),
    )
    assert rows["large"] == {"skipped": "needs 0.0 GiB"}
    assert rows["unit"]["ratios"] == {"unit": 1.0}


def test_a_method_that_fails_leaves_the_others_their_rows():
    def fails():
        raise MemoryError("no room\nfor it")

    job = Job(lambda x, _: x, lambda: jnp.zeros(1), jnp.zeros(()))
    limits = measure.Limits(rounds=3, longest=1.0, memory=1.0)
    rows = measure.measured({"a": fails, "b": lambda: job}, [], limits)
    assert rows["a"] == {"skipped": "no room"}
    assert len(rows["b"]["seconds_of_rounds"]) == 3


@pytest.mark.parametrize("at_a_time", [None, 1, 2])
def test_evaluation_is_of_every_candidate(model, at_a_time):
    job = methods.evaluation(model, 3, at_a_time)
    candidates = job.init()
    expected = [
        model.loss(jax.tree.map(lambda x, k=k: x[k], candidates), model.batch)
        for k in range(3)
    ]
    np.testing.assert_allclose(job.function(candidates, job.batch), expected, rtol=1e-5)
    assert len(set(map(float, expected))) == 3


def test_inference_is_of_all_minibatches_with_the_same_weights(model):
    job = methods.inference(model, 3)
    assert len(job.batch.images) == 3 * len(model.batch.images)
    losses = job.function(job.init(), job.batch)
    expected = [float(model.loss(model.params, model.batch))] * 3
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_the_printed_form_collapses_once_in_a_cycle_and_all_tunnel(model):
    job = methods.printed(model, 3)
    state = job.init()
    moved, tunnelled = [], []
    step = jax.jit(job.function)
    for _ in range(job.steps):
        state = step(state, job.batch)
        moved.append(bool(state[1].info.collapsed))
        tunnelled.append(int(state[1].info.num_tunnelled))
    assert sum(moved) == 1
    assert tunnelled == [2] * methods.CYCLE  # the most probable one stays


def test_memory_is_that_of_the_compiler(model):
    few, many = (
        measure.compiled(methods.qiaso(model, k, "gaussian")).about for k in (4, 64)
    )
    assert measure.mebibytes(many) > measure.mebibytes(few) > 0


def test_targets_compare_within_rounds_and_say_what_is_missing():
    rows = {
        "evaluation": row(1.0, 10.0, 1.0),
        "low_rank": row(0.4, 4.0, 0.4),
        "gaussian": row(4.0, 40.0, 4.0),
        "Open-ES": {"skipped": "needs 20 GiB"},
    }
    content = {
        "networks": {"mlp": {"candidates": {"30": rows}}},
        "memory": {"mlp, low_rank in 6": {"bytes": {"30": 100, "512": 105}}},
    }
    found = {each.of: each for each in targets.verdicts(content)}
    low_rank = found["mlp, K = 30: low_rank / evaluation"]
    assert (low_rank.measured, low_rank.passed) == (0.4, True)
    gaussian = found["mlp, K = 30: gaussian / evaluation"]
    assert (gaussian.measured, gaussian.passed) == (4.0, False)
    assert found["mlp, low_rank in 6: memory at K = 512 / at K = 30"].passed
    missing = found["mlp, K = 30: low_rank / Open-ES"]
    assert missing.measured is missing.passed is None
    text = targets.as_table(list(found.values()))
    assert "| mlp, K = 30: gaussian / evaluation | ≤ 3 | 4 | fail |" in text
    assert "| mlp, K = 30: low_rank / Open-ES | ≤ 0.12 | not measured |  |" in text


@pytest.mark.parametrize(("ours", "passed"), [(1.0, True), (1.2, False)])
def test_throughput_is_inference_over_a_step(ours, passed):
    rows = {"inference": row(1.0), "low_rank": row(ours)}
    content = {
        "networks": {"transformer": {"candidates": {"30": rows}}},
        "memory": {},
    }
    (found,) = [x for x in targets.verdicts(content) if "throughput" in x.of]
    assert found.passed == passed
    assert found.measured == pytest.approx(1 / ours, rel=1e-3)


def test_a_table_has_a_line_for_what_was_not_run():
    text = report.of_methods(
        {
            "low_rank": row(0.002, temporary=2**21, output=2**20),
            "SNES": {"skipped": "needs 17.5 GiB"},
        }
    )
    assert "| low_rank | 2 | 2.00 |  |  | 2.0 | 1.0 | 1.0 |" in text
    assert "| SNES | needs 17.5 GiB |  |  |  |  |  |  |" in text


def test_the_transformer_is_causal():
    module = models.Transformer(layers=2, width=8, heads=2, vocabulary=7)
    model = models.transformer(1, module)
    tokens = model.batch.images
    changed = tokens.at[0, 40].set((tokens[0, 40] + 1) % 7)

    def logits(tokens):
        return model.objective.apply(model.params, {}, tokens, True)[0][0]

    same = np.isclose(logits(tokens), logits(changed), atol=1e-6).all(axis=-1)
    assert same[:40].all()
    assert not same[40:].any()


def test_the_large_step_is_compiled_and_not_run():
    module = models.Transformer(layers=2, width=8, heads=2)
    size = large.Size(candidates=8, module=module)
    found = large.measured(size, steps=0)
    held = found["parameters"] * 4
    assert found["parameter_bytes"] == held
    # What is donated is written over.
    assert found["alias_bytes"] >= held
    needed = found["temporary_bytes"] + found["output_bytes"] - found["alias_bytes"]
    ratio = found["temporaries_and_outputs_over_parameters"]
    assert ratio == pytest.approx(needed / held, rel=1e-3)
    whole = needed + found["alias_bytes"]
    assert found["with_outputs_over_donated"] == pytest.approx(whole / held, rel=1e-3)
    assert found["seconds"] == []
    assert f"measured {ratio:.3g}" in large.lines(found)[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": ()}, "--networks must name at least one"),
        ({"candidates": (1, 30)}, "--candidates must be at least 2, got (1, 30)"),
        ({"cnn_candidates": ()}, "--cnn-candidates must name at least one"),
        ({"rounds": 0}, "--rounds must be at least 1, got 0"),
        ({"chunks": (0,)}, "--chunks must be at least 1, got (0,)"),
        ({"memory": 0.0}, "--memory must be positive, got 0.0"),
        ({"steps": -1}, "--steps must be at least 0, got -1"),
    ],
)
def test_impossible_commands_are_refused(settings, message, tmp_path):
    command = step_cost.Command(output=tmp_path / "no", **settings)
    with pytest.raises(UserError, match=re.escape(message)):
        step_cost.main(command)
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_whole_run_leaves_tables_and_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "MULTIPLES", ())
    with jax.numpy_rank_promotion("allow"):  # evosax promotes
        step_cost.main(
            step_cost.Command(
                output=tmp_path,
                networks=("mlp",),
                candidates=(8,),
                batch_size=4,
                rounds=3,
                longest=1.0,
            )
        )
    content = json.loads((tmp_path / "results.json").read_text())
    assert {"date", "revision", "versions", "machine", "command"} <= content.keys()
    rows = content["networks"]["mlp"]["candidates"]["8"]
    assert not [name for name, each in rows.items() if "skipped" in each]
    assert {"low_rank in 6", "printed form", "node space", "Open-ES"} <= rows.keys()
    assert rows["evaluation"]["ratios"]["evaluation"] == 1
    assert "low_rank" in (tmp_path / "table.md").read_text()
    assert "not measured" in capsys.readouterr().out
    for name in ("cost.png", "memory.png"):
        assert (tmp_path / name).stat().st_size > 1000
