import hashlib
import os
import struct
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from benchmarks.cli import UserError
from benchmarks.harness import data

SHARED = Path(__file__).parents[3] / "shared" / "datasets"
TINY = data.Source("nobody/tiny", "image", (28, 28, 1), 40, 20)

pytestmark = pytest.mark.filterwarnings(
    # multiprocess, which `datasets` imports, on Python 3.12 and later.
    "ignore:.*multi-threaded.*fork.*:DeprecationWarning"
)


def columns(size, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    images[0, 0, :2] = 0, 255
    return images, rng.integers(0, 10, size)


def write(folder, images, labels, split, label_column="label"):
    folder.mkdir(parents=True, exist_ok=True)
    table = {"image": [Image.fromarray(i) for i in images], label_column: list(labels)}
    dataset = datasets.Dataset.from_dict(table)
    path = folder / f"{split}-00000-of-00001.parquet"
    dataset.to_parquet(path)
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a small dataset in the layout of the hub, called mnist."""
    monkeypatch.setitem(data.SOURCES, "mnist", TINY)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    train, test = columns(40, 0), columns(20, 1)
    write(tmp_path / "mnist", *train, "train")
    write(tmp_path / "mnist", *test, "test")
    return tmp_path, train, test


def test_decodes_what_was_written_in_its_order(tiny):
    root, (images, labels), (test_images, test_labels) = tiny
    loaded = data.load("mnist", root)
    np.testing.assert_array_equal(loaded.train_images[..., 0], images)
    np.testing.assert_array_equal(loaded.train_labels, labels)
    np.testing.assert_array_equal(loaded.test_images[..., 0], test_images)
    np.testing.assert_array_equal(loaded.test_labels, test_labels)


def test_changed_source_is_decoded_again(tiny):
    root, (images, labels), _ = tiny
    first = data.load("mnist", root)
    path = write(root / "mnist", images[::-1], labels, "train")
    os.utime(path, ns=(0, 0))
    assert data.load("mnist", root).fingerprint != first.fingerprint


def test_environment_variable_names_the_folder(tiny, monkeypatch):
    root, (_, labels), _ = tiny
    monkeypatch.setenv("QIASO_DATA_DIR", str(root))
    np.testing.assert_array_equal(data.load("mnist").train_labels, labels)


def test_truncated_parquet(tiny):
    root, *_ = tiny
    path = root / "mnist" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"cannot read .*mnist.*damaged"):
        data.load("mnist", root)


def test_missing_labels_column(tiny):
    root, (images, labels), (test_images, test_labels) = tiny
    write(root / "mnist", images, labels, "train", "digit")
    write(root / "mnist", test_images, test_labels, "test", "digit")
    with pytest.raises(
        UserError, match=r"columns \['digit', 'image'\], expected \['image', 'label'\]"
    ):
        data.load("mnist", root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:30], y[:30]), "30 examples, expected 40"),
        (lambda x, y: (x, y + 1), "labels run from 1 to 10, expected 0 to 9"),
        (lambda x, y: (x, y / 2), "labels are float(32|64), expected integers"),
        (lambda x, y: (x // 2, y), "pixels run from 0 to 127, expected 0 to 255"),
        (lambda x, y: (x[:, :20], y), r"images are uint8\[20, 28, 1\], expected uint8"),
    ],
)
def test_contents_are_checked(tiny, change, message):
    root, (images, labels), _ = tiny
    labels = labels.copy()
    labels[:2] = 0, 9
    write(root / "mnist", *change(images, labels), "train")
    with pytest.raises(UserError, match=message):
        data.load("mnist", root)


def test_missing_split(tiny):
    root, *_ = tiny
    (root / "mnist" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match="no 'test' split"):
        data.load("mnist", root)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*cifar10; --data-dir"):
        data.load("cifar10", tmp_path)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.delenv("QIASO_DATA_DIR", raising=False)
    # Otherwise it tries for half a minute.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot read ylecun/mnist: .*--data-dir"):
        data.load("mnist", cache_dir=tmp_path)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    loaded = data.load("digits")
    assert len(loaded.test_labels) == 360
    pixels = np.concatenate([loaded.train_images, loaded.test_images])[..., 0]
    labels = np.concatenate([loaded.train_labels, loaded.test_labels])
    ours = sorted(
        (label, *image.ravel()) for image, label in zip(pixels, labels, strict=True)
    )
    theirs = sorted(
        (t, *i.ravel()) for i, t in zip(bunch.images, bunch.target, strict=True)
    )
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/datasets")
def test_mnist_has_the_published_checksums(tmp_path):
    loaded = data.load("mnist", SHARED, tmp_path)
    for images, published in (
        (loaded.train_images, "6bbc9ace898e44ae57da46a324031adb"),
        (loaded.test_images, "2646ac647ad5339dbf082846283269ea"),
    ):
        header = struct.pack(">4i", 2051, *images.shape[:3])
        assert hashlib.md5(header + images.tobytes()).hexdigest() == published
