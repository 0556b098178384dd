"""The speed that README claims and `make bench` demands: the one place for these numbers.

python benchmarks/targets.py                writes them into README.md
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).resolve().parent.parent / "README.md"
HEAD = ("| | claimed |", "|---|---|")


class Target(NamedTuple):
    """What is demanded of a figure.

    Attributes:
        what: is measured, and what it is compared to.
        bounds: by case, or one by the empty name.
        unit: of the bounds.
        most: whether they are the most, not the least.
    """

    what: str
    bounds: dict[str, float]
    unit: str = "times as fast"
    most: bool = False

    def demanded(self, cases: Sequence[str]) -> str:
        """The bounds of some cases in words."""
        return f"at {'most' if self.most else 'least'} {_listed([f'{self.bounds[c]:g}' for c in cases])} {self.unit}"

    def reached(self, case: str, value: float) -> bool:
        """Whether a value is within the bound of a case."""
        return value <= self.bounds[case] if self.most else value >= self.bounds[case]


TARGETS = {
    "extraction": Target(
        "features, decoding included, against the bare forward of the same layers in torch, BatchNorm folded",
        {"resnet18": 1.05, "mobilenet_v3_large": 1.4, "vgg16": 1.1},
    ),
    "runtime": Target(
        "the same layers alone on ONNX Runtime against torch, 23 pictures",
        {
            **{"resnet18": 1.3, "mobilenet_v3_large": 1.6, "vgg16": 1.2},
            **{"resnet50": 1.0, "mobilenet_v2": 1.0, "efficientnet_lite0": 1.0},
        },
    ),
    "fit": Target(
        "`gel-fit fit`, 20 epochs on stored vectors, the whole process, against `import torch, torchvision, lightning`",
        {"": 2.0},
        "times as long",
        most=True,
    ),
    "help": Target("`gel-fit --help`, the whole process", {"": 1.0}, "s", most=True),
    "version": Target("`gel-fit --version`, the whole process", {"": 0.2}, "s", most=True),
    "loop": Target("fit loop of 20 epochs, with TensorBoard and checkpoints", {"": 1.5}, "s", most=True),
    "compare": Target(
        "`gel-fit compare`, twelve models on the CPU, against training each through the whole network",
        {"nothing stored": 60, "all vectors stored": 120},
    ),
    "folds": Target(
        "`gel-fit compare --folds 5 --repeats 10`, eight models, 408 fits, all vectors stored",
        {"": 150},
        "s",
        most=True,
    ),
    "memory": Target(
        "peak memory of `gel-fit fit` over that of `import torch`",
        {"resnet18": 1200, "vgg16": 2000, "resnet18 with vectors stored": 400},
        "MB",
        most=True,
    ),
    "find": Target(
        "`gel-fit find`, half a megapixel a picture, against bare Pillow and then bare ONNX Runtime on all cores",
        {"": 0.85},
    ),
    "find start": Target("`gel-fit find`, one picture, the whole process", {"": 1.0}, "s", most=True),
    "find memory": Target("its peak memory for 20,000 pictures over that for 500", {"": 50}, "MB", most=True),
    "sharding": Target(
        "features of 400 pictures, ResNet18, by two processes (`ddp`) that share two cores, against one process",
        {"that has both": 0.9, "that has one": 1.3},
    ),
}


def table() -> list[str]:
    """The lines of README's table."""
    lines = list(HEAD)
    for target in TARGETS.values():
        cases = list(target.bounds)
        named = f": {_listed(cases)}" if cases != [""] else ""
        lines.append(f"| {target.what}{named} | {target.demanded(cases)} |")
    return lines


def claimed(text: str) -> list[str]:
    """The lines of the table that a README has."""
    lines = text.splitlines()
    first = lines.index(HEAD[0])
    return [line for line in lines[first:] if line.startswith("|")]


def _listed(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


if __name__ == "__main__":
    old = README.read_text(encoding="utf-8")
    README.write_text(old.replace("\n".join(claimed(old)), "\n".join(table())), encoding="utf-8")
