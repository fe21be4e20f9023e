"""The example of fine-tuning, on tiny models."""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import qiaso_jax

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import fine_tuning  # pyright: ignore[reportMissingImports]

    # The places are added to every sequence.
    with jax.numpy_rank_promotion("allow"):
        yield fine_tuning
    del sys.modules["fine_tuning"]


def tiny(example):
    model = example.Transformer(16, 1, 2)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))
    return example.loss_of(model), params


def test_the_model_has_five_million_weights(example):
    tokens = jnp.zeros((1, example.LENGTH), jnp.int32)
    params = jax.eval_shape(example.Transformer().init, jax.random.key(0), tokens)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) >= 5_000_000


def test_parts_of_the_prose_have_no_paragraph_in_common(example):
    parts = [set(part.splitlines()) for part in example.prose()]
    train, validation, test = parts
    assert len(train | validation | test) == sum(map(len, parts))
    assert min(map(len, parts)) > 100


def test_sequences_are_the_text_cut(example):
    text = bytes(range(200))
    cut = example.sequences(text)
    assert cut.shape == (3, example.LENGTH + 1)
    assert bytes(cut.astype(np.uint8).ravel()) == text[: cut.size]


def test_earlier_bytes_do_not_see_later_ones(example):
    model = example.Transformer(16, 1, 2)
    tokens = jnp.arange(8)[None]
    params = model.init(jax.random.key(0), tokens)
    logits = model.apply(params, tokens)
    changed = model.apply(params, tokens.at[0, 5].set(200))
    np.testing.assert_array_equal(logits[:, :5], changed[:, :5])
    assert not jnp.array_equal(logits[:, 5], changed[:, 5])


def test_mezo_is_the_step_of_spsa(example):
    # In float64, where neither the losses nor their difference are rounded.
    with jax.enable_x64(True):
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))

        def loss(params, tokens):
            return jnp.sum(jnp.sin(params + tokens))

        rate, sigma, tokens = 0.01, 1e-3, 0.3
        tx = example.mezo((rate,)).make(rate, seed=3)
        state = tx.init(weights)
        plus, minus = np.asarray(jax.jit(partial(qiaso_jax.ask, tx))(state, weights))
        z = (plus - minus) / (2 * sigma)
        difference = np.sin(plus + tokens).sum() - np.sin(minus + tokens).sum()
        step = jax.jit(partial(tx.update, None, value_fn=loss))
        updates, _ = step(state, weights, tokens=tokens)
    expected = -rate * difference / (2 * sigma) * z
    # tanh(x) = x to x²/3, and x is half the difference.
    np.testing.assert_allclose(updates, expected, rtol=(difference / 2) ** 2)
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("name", ["low_rank", "mezo"])
def test_a_mask_moves_the_last_layer_alone(example, name):
    method = (
        example.low_rank(optax.sgd, (), 4, 2, example.head)
        if name == "low_rank"
        else example.mezo((), 2, example.head)
    )
    loss, params = tiny(example)
    tx = method.make(0.1, 0)
    tokens = example.sequences(example.prose()[0])[:2]
    updates, _ = jax.jit(
        lambda p, s: tx.update(None, s, p, value_fn=loss, tokens=tokens)
    )(params, tx.init(params))
    moved = {
        layer: any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(leaves))
        for layer, leaves in updates["params"].items()
    }
    assert {layer for layer, moves in moved.items() if moves} == {"head"}


def test_memory_of_a_step_does_not_grow_with_candidates(example):
    loss, params = tiny(example)
    few, many = (
        example.peak_bytes(
            example.compiled_step(
                example.low_rank(optax.sgd, (), number, 4, example.head), loss, params
            )
        )
        for number in (32, 512)
    )
    assert many <= 1.1 * few


@pytest.mark.slow
def test_all_at_equal_evaluations(example, monkeypatch, tmp_path):
    def two_of_them():
        last = [example.low_rank(optax.adam, (3e-3, 1e-2), 32, 4, example.head)]
        return {"low rank": (last, 1), "Adam": ([example.adam((1e-3, 3e-3))], 1)}

    monkeypatch.setattr(example, "methods", two_of_them)
    model = example.Transformer(16, 1, 2)
    content = example.main(model, 30, 4_096, 1, 16, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(
        json.dumps(content)
    )
    assert (tmp_path / "figure.png").stat().st_size > 0
    lines = (tmp_path / "table.md").read_text()
    for name, row in content["results"].items():
        assert f"| {name} |" in lines
        assert row["test_losses"][0] < content["test_loss_before"]
        evaluations, seconds, _ = np.array(row["histories"][0]).T
        assert 4_096 - 128 < evaluations[-1] <= 4_096
        assert np.all(np.diff(evaluations) > 0)
        assert np.all(np.diff(seconds) > 0)
