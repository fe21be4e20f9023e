"""MNIST, Fashion-MNIST, CIFAR-10 and digits as checked uint8 arrays.

The first three come through the ``datasets`` library, which caches them, from the hub
or from a local folder in its layout. Digits comes with scikit-learn.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.cli import UserError

DatasetName = Literal["mnist", "fashion_mnist", "cifar10", "digits"]
CLASSES = 10


class Source(NamedTuple):
    """Where a dataset is published and what it must look like."""

    hub: str
    image_column: str
    shape: tuple[int, int, int]
    train_size: int
    test_size: int


SOURCES = {
    "mnist": Source("ylecun/mnist", "image", (28, 28, 1), 60_000, 10_000),
    "fashion_mnist": Source(
        "zalando-datasets/fashion_mnist", "image", (28, 28, 1), 60_000, 10_000
    ),
    "cifar10": Source("uoft-cs/cifar10", "img", (32, 32, 3), 50_000, 10_000),
}


class Dataset(NamedTuple):
    """Images ``uint8[N, H, W, C]`` and labels ``int32[N]`` of both published splits."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def fingerprint(self) -> str:
        """A hash of every pixel and label."""
        digest = hashlib.blake2b(digest_size=16)
        for array in self:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load(
    name: DatasetName, data_dir: Path | None = None, cache_dir: Path | None = None
) -> Dataset:
    """The dataset called ``name``.

    Args:
      name: Which.
      data_dir: A folder with one sub-folder per dataset; default ``$QIASO_DATA_DIR``,
        and the hub where that is unset.
      cache_dir: The cache of ``datasets``; default its own.

    Raises:
      UserError: The source is missing, damaged, or not the dataset it should be.
    """
    if name == "digits":
        return _digits()
    source = SOURCES[name]
    root = data_dir or os.environ.get("QIASO_DATA_DIR")
    path = Path(root).expanduser() / name if root else source.hub
    splits = _read_splits(name, path, cache_dir)
    arrays = []
    for split, size in (("train", source.train_size), ("test", source.test_size)):
        if split not in splits:
            raise UserError(f"{name}: no {split!r} split, found {sorted(splits)}")
        arrays += _checked(splits[split], f"{name}, {split} split", source, size)
    return Dataset(*arrays)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = bunch.images[order].astype(np.uint8)[..., None]
    labels = bunch.target[order].astype(np.int32)
    test = 360  # a fifth, as is usual for this set
    return Dataset(images[test:], labels[test:], images[:test], labels[:test])


def _read_splits(
    name: str, path: Path | str, cache_dir: Path | None
) -> dict[str, dict[str, np.ndarray]]:
    """The columns of every split, decoded."""
    if isinstance(path, Path) and not path.is_dir():
        raise UserError(
            f"{name}: no folder {path}; --data-dir (or QIASO_DATA_DIR) must hold a "
            f"sub-folder {name} with the dataset's parquet files"
        )
    # Costs a second, and digits does without.
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what fails is raised
    try:
        splits: Any = datasets.load_dataset(
            str(path), cache_dir=None if cache_dir is None else str(cache_dir)
        )
        return {split: rows.with_format("numpy")[:] for split, rows in splits.items()}
    except Exception as error:  # every reader behind `datasets` has its own
        raise UserError(
            f"{name}: cannot read {path}: {_root_cause(error)}; the files are damaged, "
            "incomplete or in another format, or there is no network: --data-dir (or "
            f"QIASO_DATA_DIR) names a folder with a sub-folder {name}"
        ) from error


def _root_cause(error: BaseException) -> str:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")


def _checked(
    columns: dict[str, np.ndarray], where: str, source: Source, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; raises ``UserError`` unless they are as published."""

    def require(holds: Any, found: str, expected: str) -> None:
        if not holds:
            raise UserError(f"{where}: {found}, expected {expected}")

    needed = {source.image_column, "label"}
    require(needed <= columns.keys(), f"columns {sorted(columns)}", f"{sorted(needed)}")
    images, labels = columns[source.image_column], columns["label"]
    require(
        len(labels) == size,
        f"{len(labels)} examples",
        f"{size}; a file is incomplete or is another dataset's",
    )
    # Grey images come without a channel axis.
    images = images[..., None] if images.ndim == 3 else images
    shape = images.shape[1:]
    require(
        images.dtype == np.uint8 and shape == source.shape,
        f"images are {images.dtype}{list(shape)}",
        f"uint8{list(source.shape)}",
    )
    integers = np.issubdtype(labels.dtype, np.integer)
    require(integers, f"labels are {labels.dtype}", "integers")
    for what, values, greatest in (
        ("labels", labels, CLASSES - 1),
        ("pixels", images, 255),
    ):
        least, most = values.min(), values.max()
        require(
            (least, most) == (0, greatest),
            f"{what} run from {least} to {most}",
            f"0 to {greatest}",
        )
    return images, labels.astype(np.int32)
