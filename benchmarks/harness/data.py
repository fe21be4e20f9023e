"""MNIST, Fashion-MNIST, CIFAR-10 and digits as checked uint8 arrays.

The first three come through the ``datasets`` library, from the hub or from a local
folder, and are decoded once into a cached ``.npz``. Digits comes with scikit-learn.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from benchmarks.cli import UserError

DatasetName = Literal["mnist", "fashion_mnist", "cifar10", "digits"]
NAMES: tuple[str, ...] = get_args(DatasetName)
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
    name: str, data_dir: Path | None = None, cache_dir: Path | None = None
) -> Dataset:
    """The dataset called ``name``, decoded at the first call and cached afterwards.

    Args:
      name: One of ``NAMES``.
      data_dir: A folder with one sub-folder per dataset; default ``$QIASO_DATA_DIR``,
        and the hub where that is unset.
      cache_dir: Where decoded arrays lie; default ``$QIASO_CACHE_DIR``, else
        ``~/.cache/qiaso_jax``.

    Raises:
      UserError: The source is missing, damaged, or not the dataset it should be.
    """
    if name == "digits":
        return _digits()
    if name not in SOURCES:
        raise UserError(f"dataset must be one of {', '.join(NAMES)}, got {name!r}")
    source = SOURCES[name]
    root = data_dir or _environment_path("QIASO_DATA_DIR")
    folder = None if root is None else root / name
    cache = cache_dir or _environment_path("QIASO_CACHE_DIR")
    cache = cache or Path.home() / ".cache" / "qiaso_jax"
    cached = cache / f"{name}-{_source_key(source, folder)}.npz"
    dataset = _read_cache(cached)
    if dataset is None:
        dataset = _decode(name, source, folder)
        _write_cache(cached, dataset)
    return dataset


def check(dataset: Dataset, name: str, source: Source) -> None:
    """Raises ``UserError`` unless shape, count and ranges are as published."""
    for split, images, labels, size in (
        ("train", dataset.train_images, dataset.train_labels, source.train_size),
        ("test", dataset.test_images, dataset.test_labels, source.test_size),
    ):
        where = f"{name}, {split} split:"
        if len(images) != size or len(labels) != size:
            raise UserError(
                f"{where} {len(images)} images and {len(labels)} labels, expected "
                f"{size} of each; a file is incomplete or is another dataset's"
            )
        if images.shape[1:] != source.shape or images.dtype != np.uint8:
            raise UserError(
                f"{where} images are {images.dtype}{list(images.shape[1:])}, expected "
                f"uint8{list(source.shape)}"
            )
        if labels.min() < 0 or labels.max() >= CLASSES:
            raise UserError(
                f"{where} labels run from {labels.min()} to {labels.max()}, expected "
                f"0 to {CLASSES - 1}"
            )
        if images.min() != 0 or images.max() != 255:
            raise UserError(
                f"{where} pixels run from {images.min()} to {images.max()}, expected "
                "0 to 255"
            )


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = bunch.images[order].astype(np.uint8)[..., None]
    labels = bunch.target[order].astype(np.int32)
    test = 360  # a fifth, as is usual for this set
    return Dataset(images[test:], labels[test:], images[:test], labels[:test])


def _decode(name: str, source: Source, folder: Path | None) -> Dataset:
    splits = _read_splits(name, source, folder)
    arrays = []
    for split in ("train", "test"):
        if split not in splits:
            raise UserError(f"{name}: no {split!r} split, found {sorted(splits)}")
        arrays += _columns(splits[split], name, split, source)
    dataset = Dataset(*arrays)
    check(dataset, name, source)
    return dataset


def _read_splits(name: str, source: Source, folder: Path | None) -> Any:
    if folder is None:
        _require_network(name, source)
    elif not folder.is_dir():
        raise UserError(
            f"{name}: no folder {folder}; --data-dir (or QIASO_DATA_DIR) must hold a "
            f"sub-folder {name} with the dataset's parquet files"
        )
    # Costs a second, and only where something has to be decoded.
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what fails is raised
    path = source.hub if folder is None else str(folder)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            splits = datasets.load_dataset(path, cache_dir=scratch)
            # In memory, because the scratch folder is about to go.
            return {key: _materialise(value) for key, value in dict(splits).items()}
        except Exception as error:  # every reader behind `datasets` has its own
            raise UserError(
                f"{name}: cannot read {path}: {_root_cause(error)}; the files are "
                "damaged, incomplete or in another format"
            ) from error


def _materialise(split: Any) -> dict[str, Any]:
    return split.with_format("numpy")[:]


def _columns(
    columns: dict[str, Any], name: str, split: str, source: Source
) -> tuple[np.ndarray, np.ndarray]:
    for column in (source.image_column, "label"):
        if column not in columns:
            raise UserError(
                f"{name}, {split} split: no column {column!r}, found "
                f"{sorted(columns)}; expected the columns of {source.hub}"
            )
    labels = np.asarray(columns["label"])
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{name}, {split} split: labels are {labels.dtype}, expected integers"
        )
    images = columns[source.image_column]
    shapes = {np.shape(image) for image in images}
    if len(shapes) != 1:
        raise UserError(f"{name}, {split} split: images differ in shape: {shapes}")
    images = np.stack(list(images))
    # Grey images come without a channel axis.
    images = images[..., None] if images.ndim == 3 else images
    return images, labels.astype(np.int32)


def _require_network(name: str, source: Source) -> None:
    # `datasets` retries for half a minute before it gives up; ask once instead.
    from huggingface_hub.constants import ENDPOINT

    try:
        request = urllib.request.Request(ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answered
    except OSError as error:
        raise UserError(
            f"{name}: cannot reach {ENDPOINT} to download {source.hub} "
            f"({_root_cause(error)}); without a network, pass --data-dir or set "
            f"QIASO_DATA_DIR to a folder with a sub-folder {name}"
        ) from error


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = str(error).splitlines()[0].rstrip(".") if str(error) else ""
    return f"{type(error).__name__}: {text}"


def _environment_path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def _source_key(source: Source, folder: Path | None) -> str:
    # Names, sizes and times of the files, so that a changed source is decoded again.
    text = source.hub
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
        text = str(folder.resolve()) + repr(
            [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
        )
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _read_cache(path: Path) -> Dataset | None:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Dataset(**{field: arrays[field] for field in Dataset._fields})
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return None  # absent or torn: the source is still there to be decoded again


def _write_cache(path: Path, dataset: Dataset) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **dataset._asdict())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write decoded data to {path.parent}: {error.strerror}; pass "
            "--cache-dir or set QIASO_CACHE_DIR to a folder with space"
        ) from error
