import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cli import UserError
from benchmarks.harness import checkpoints
from benchmarks.harness.checkpoints import Checkpoints

EXPERIMENT = {"optimizer": "adam", "epochs": 3}


def state(number):
    key = jax.random.fold_in(jax.random.key(0), number)
    return {
        "params": jax.random.normal(key, (50, 20)),
        "count": jnp.int32(number),
        "key": jax.random.key_data(key),
        "empty": (),
    }


@pytest.fixture
def folder(tmp_path):
    """Three epochs saved; the newest two are kept."""
    with Checkpoints(tmp_path / "checkpoints", EXPERIMENT) as saved:
        for epoch in (1, 2, 3):
            saved.save(epoch, state(epoch))
    return tmp_path / "checkpoints"


def restored(folder, experiment=EXPERIMENT, like=None):
    said = []
    with Checkpoints(folder, experiment) as saved:
        found = saved.restore(state(0) if like is None else like, said.append)
        return found, said, saved.epochs()


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert [x.dtype for x in jax.tree.leaves(a)] == [
        x.dtype for x in jax.tree.leaves(b)
    ]


def test_restores_the_newest_bit_for_bit(folder):
    found, said, epochs = restored(folder)
    assert found[0] == 3
    assert_same(found[1], state(3))
    assert (said, epochs) == ([], [2, 3])


def test_none_without_checkpoints(tmp_path):
    assert restored(tmp_path / "new")[:2] == (None, [])


@pytest.mark.parametrize("what", ["array", "manifest", "description", "everything"])
def test_torn_checkpoint_gives_way_to_the_previous_one(folder, what):
    torn = {
        "array": lambda: max(
            folder.glob("3/state/**/d/*"), key=lambda path: path.stat().st_size
        ),
        "manifest": lambda: folder / "3/state/manifest.ocdbt",
        "description": lambda: folder / "3/about/metadata",
    }
    if what == "everything":
        shutil.rmtree(folder / "3")
        (folder / "3").mkdir()
    else:
        path = torn[what]()
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, said, epochs = restored(folder)
    assert found[0] == 2
    assert_same(found[1], state(2))
    assert epochs == [2]
    if what != "everything":  # orbax itself does not count an empty folder
        assert "checkpoint of epoch 3 refused" in said[0]
        assert (folder.parent / "refused-checkpoints" / "3").is_dir()


def test_altered_numbers_are_noticed(folder):
    # Well-formed, and not what was saved: the description of another epoch.
    shutil.copytree(folder / "2/about", folder / "3/about", dirs_exist_ok=True)
    found, said, _ = restored(folder)
    assert found[0] == 2
    assert "does not have its digest" in said[0]


def test_foreign_checkpoint_is_refused(folder, tmp_path):
    with Checkpoints(tmp_path / "other", {"optimizer": "sgd"}) as other:
        other.save(9, state(9))
    shutil.copytree(tmp_path / "other" / "9", folder / "9")
    found, said, _ = restored(folder)
    assert found[0] == 3
    assert "epoch 9 refused: it belongs to another experiment" in said[0]


def test_another_structure_is_refused(folder):
    found, said, _ = restored(folder, like={"weights": jnp.zeros(3)})
    assert found is None
    assert len(said) == 2


def test_refused_epoch_can_be_saved_again(folder):
    (folder / "3/about/metadata").write_text("{")
    with Checkpoints(folder, EXPERIMENT) as saved:
        assert saved.restore(state(0), lambda _: None)[0] == 2
        saved.save(3, state(3))
    found, said, _ = restored(folder)
    assert (found[0], said) == (3, [])


def test_state_may_change_while_it_is_written(tmp_path):
    array = np.zeros(1_000_000, np.float32)
    with Checkpoints(tmp_path / "checkpoints", EXPERIMENT) as saved:
        saved.save(1, {"x": array})
        array += 1
    found, said, _ = restored(tmp_path / "checkpoints", like={"x": jnp.asarray(array)})
    assert said == []
    assert not np.any(found[1]["x"])


def test_too_little_space(folder, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with (
        Checkpoints(folder, EXPERIMENT) as saved,
        pytest.raises(UserError, match=r"no space left .*1,000 free.*epochs \[2, 3\]"),
    ):
        saved.save(4, state(4))
    assert restored(folder)[0][0] == 3


def test_space_is_measured_when_nothing_is_being_written(folder, monkeypatch):
    with Checkpoints(folder, EXPERIMENT) as saved:
        usage, finish, order = shutil.disk_usage, saved.finish, []
        monkeypatch.setattr(saved, "finish", lambda: (order.append("wait"), finish()))
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: (order.append("measure"), usage(path))[1]
        )
        saved.save(4, state(4))
        saved.save(5, state(5))
    assert order == ["wait", "measure"] * 2


def test_failure_of_the_writer_is_one_sentence(folder, monkeypatch):
    with Checkpoints(folder, EXPERIMENT) as saved:

        def fail(*_, **__):
            raise OSError("no")

        monkeypatch.setattr(saved._manager, "save", fail)
        with pytest.raises(UserError, match=r"cannot write .*OSError: no"):
            saved.save(4, state(4))


def test_digest_sees_every_bit():
    tree = {"a": jnp.zeros(3), "b": jnp.float32(0)}
    others = [
        {"a": jnp.zeros(3), "b": jnp.float32(-0.0)},
        {"a": jnp.zeros((3, 1)), "b": jnp.float32(0)},
        {"a": jnp.zeros(3), "c": jnp.float32(0)},
        {"a": jnp.zeros(3), "b": jnp.int32(0)},
    ]
    digests = {checkpoints.digest(other) for other in [tree, *others]}
    assert len(digests) == 5
    assert json.dumps(checkpoints.digest(tree))
