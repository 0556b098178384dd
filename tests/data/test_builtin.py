"""The data sets of torchvision: downloaded from a server of the test's own, packed, split and served."""

import base64
import gzip
import hashlib
import pickle
import re
import struct
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from conftest import gel_fit, read_rows, refused
from PIL import Image

from gel_lightning import GelDataModule
from gel_lightning.data.builtin import BUILTIN, pack, prepare, read_builtin
from gel_lightning.data.images import read_picture

TINY = ("--trainer.max_epochs", 1, "--model.weights", "none", "--data.image_size", 32, "--data.num_workers", 0)
COUNTS = {"train": 40, "test": 20}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Says nothing."""


def pixels(part: str, colour: bool) -> np.ndarray:
    shape = (COUNTS[part], *((32, 32, 3) if colour else (28, 28)))
    return np.random.default_rng(len(part)).integers(0, 256, shape, np.uint8)


def labels(part: str) -> np.ndarray:
    return np.arange(COUNTS[part]) % 10


def idx(values: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def serve_mnist(to: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = []
    for part, name in (("train", "train"), ("test", "t10k")):
        contents = {"images-idx3": pixels(part, False), "labels-idx1": labels(part).astype(np.uint8)}
        for kind, values in contents.items():
            file = to / f"{name}-{kind}-ubyte.gz"
            file.write_bytes(idx(values))
            resources.append((file.name, md5(file.read_bytes())))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"{url}/"])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)


def serve_cifar10(to: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, folder = torchvision.datasets.CIFAR10, to / "cifar-10-batches-py"
    folder.mkdir()
    lists: dict[str, list[list[str]]] = {}
    for part in COUNTS:
        data = pixels(part, True).transpose(0, 3, 1, 2).reshape(COUNTS[part], -1)
        content = pickle.dumps({"data": data, "labels": labels(part).tolist()})
        (folder / part).write_bytes(content)
        lists[part] = [[part, md5(content)]]
    meta = pickle.dumps({"label_names": list(BUILTIN["cifar10"].class_names)})
    (folder / "batches.meta").write_bytes(meta)
    with tarfile.open(to / "cifar.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    monkeypatch.setattr(kind, "url", f"{url}/cifar.tar.gz")
    monkeypatch.setattr(kind, "tgz_md5", md5((to / "cifar.tar.gz").read_bytes()))
    monkeypatch.setattr(kind, "train_list", lists["train"])
    monkeypatch.setattr(kind, "test_list", lists["test"])
    monkeypatch.setattr(kind, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5(meta)})


SERVE = {"mnist": serve_mnist, "cifar10": serve_cifar10}


@pytest.fixture(params=list(SERVE))
def dataset(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A data set that a local server has, in an empty working folder."""
    served = tmp_path / "served"
    served.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        SERVE[request.param](served, f"http://127.0.0.1:{server.server_port}", monkeypatch)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield request.param
        server.shutdown()


def test_a_data_set_is_downloaded_once_and_keeps_its_official_parts(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path("data", dataset)
    prepare(dataset, root)
    monkeypatch.setattr(torchvision.datasets, BUILTIN[dataset].name, None)  # what is packed needs none
    prepare(dataset, root)
    for part, pictures in read_builtin(dataset, root, None).items():
        assert pictures.labels == labels(part).tolist()
        assert pictures.class_names == list(BUILTIN[dataset].class_names)
        read = np.stack([np.asarray(read_picture(path, colour=dataset == "cifar10")) for path in pictures.paths])
        assert np.array_equal(read, pixels(part, dataset == "cifar10"))


def test_what_cannot_be_downloaded_is_one_line_and_leaves_nothing_packed(dataset: str, tmp_path: Path) -> None:
    for file in (tmp_path / "served").glob("*.gz"):
        file.write_bytes(b"damaged")
    text = refused(lambda: prepare(dataset, Path("data", dataset)))
    assert text.startswith(f"{dataset} cannot be downloaded, or its files in data/{dataset}/")
    assert "\n" not in text
    assert not list(Path("data").rglob("*.npy"))


def packed(root: Path, colour: bool = True) -> None:
    for part in COUNTS:
        pack(root, part, pixels(part, colour), labels(part))


def damage_count(root: Path) -> None:
    np.save(root / "train_labels.npy", np.zeros(3, np.int64))


def damage_label(root: Path) -> None:
    np.save(root / "train_labels.npy", np.full(COUNTS["train"], 10))


def damage_sign(root: Path) -> None:
    np.save(root / "train_labels.npy", labels("train") - 1)


def damage_class(root: Path) -> None:
    np.save(root / "train_labels.npy", labels("train").clip(0, 8))


def damage_kind(root: Path) -> None:
    np.save(root / "train.npy", np.zeros((COUNTS["train"], 8)))


def damage_end(root: Path) -> None:
    (root / "train.npy").write_bytes((root / "train.npy").read_bytes()[:500])


@pytest.mark.parametrize("damage", [damage_count, damage_label, damage_sign, damage_class, damage_kind, damage_end])
def test_damaged_packed_files_are_named(tmp_path: Path, damage: Any) -> None:
    packed(tmp_path)
    damage(tmp_path)
    text = refused(lambda: read_builtin("cifar10", tmp_path, None))
    assert text.startswith(f"{tmp_path / 'train.npy'}, train_labels.npy: damaged (")
    assert text.endswith("delete both, and run again")


def test_some_classes_are_taken_in_the_order_of_their_labels(tmp_path: Path) -> None:
    packed(tmp_path)
    parts = read_builtin("cifar10", tmp_path, ["truck", "cat"])
    assert parts["test"].labels == [1, 0, 1, 0]
    assert [int(path.name) for path in parts["test"].paths] == [3, 9, 13, 19]
    assert "cifar10 has no class lorry, but airplane, " in refused(
        lambda: read_builtin("cifar10", tmp_path, ["lorry", "cat"])
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_dir", "pictures"),
        ("test_dir", "more=pictures"),
        ("groups", "g.csv"),
        ("drawn", True),
        ("extra_drawn", 3),
    ],
)
def test_settings_of_folders_are_refused_with_a_data_set(name: str, value: Any) -> None:
    text = refused(lambda: GelDataModule(dataset="mnist", **{name: value}))
    assert text.startswith("--data.dataset mnist has its own training and test pictures; ")
    assert f"--data.{name}" in text


@pytest.mark.parametrize("colour", [False, True])
def test_a_model_is_fitted_tested_and_predicts_in_colour_or_grey(tmp_path: Path, colour: bool) -> None:
    packed(tmp_path / "data/cifar10")
    options = (*TINY, "--data.colour", colour, "--data.augmentation", "crop_flip", "--data.views", 2)
    ran = gel_fit("fit", "--data.dataset", "cifar10", *options, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "30 training, 10 validation and 20 test pictures of 10 classes: airplane, automobile" in ran.out
    (row,) = read_rows(tmp_path / "lightning_logs/results.csv")
    assert row["data_folder"] == "data/cifar10"
    checkpoint = ("--ckpt_path", next(tmp_path.rglob("best.ckpt")), "--data.num_workers", 0)
    picture = tmp_path / "own.png"
    read_picture(tmp_path / "data/cifar10/test.npy/3", colour=True).save(picture)
    ran = gel_fit("predict", *checkpoint, "--data.predict_dir", picture, cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    ran = gel_fit("export", *checkpoint[:2], "--to", "own.onnx", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    outputs = ("--csv", "found.csv", "--page", "found.html", "--explain")
    ran = gel_fit("find", "--model", "own.onnx", "own.png", *outputs, cwd=tmp_path)
    assert ran.status == 0
    [found], [predicted] = (read_rows(tmp_path / name) for name in ("found.csv", "predictions.csv"))
    shares = [name for name in found if name.startswith("probability_")]
    assert len(shares) == 10
    assert [float(found[name]) for name in shares] == pytest.approx(
        [float(predicted[name]) for name in shares], abs=1e-3
    )
    small = re.search('data:image/jpeg;base64,([^"]+)', (tmp_path / "found.html").read_text())
    assert small is not None
    with Image.open(BytesIO(base64.b64decode(small[1]))) as shown:
        assert shown.mode == ("RGB" if colour else "L")


def test_colour_is_seen_in_colour_and_not_in_grey(tmp_path: Path) -> None:
    grey = np.full((2, 8, 8, 3), 76, np.uint8)
    grey[1] = (255, 0, 0)  # whose luma is 76
    for part in COUNTS:
        pack(tmp_path, part, grey, np.arange(2))
    one, other = (tmp_path / "train.npy" / str(number) for number in range(2))
    assert np.array_equal(np.asarray(read_picture(one)), np.asarray(read_picture(other)))
    assert not np.array_equal(np.asarray(read_picture(one, True)), np.asarray(read_picture(other, True)))
