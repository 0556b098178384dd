"""Whole commands that train: fit, compare and folds, against imports and the original study's training."""

import sys
import tempfile
import time
from pathlib import Path

import torch
from measuring import BACKBONES, BATCH, EPOCHS, GEL_FIT, IMPORT, RUNS_PER_BACKBONE, Figure, drawn, fit, run
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models
from torchvision.transforms import v2

from gel_lightning import MultiLayerHead

# Runs gel-fit and prints how long the fit loop took.
TIMED_FIT = """
import sys, time
from lightning.pytorch import Trainer
from gel_lightning.cli.main import main
FitLoop = type(Trainer(accelerator="cpu", logger=False).fit_loop)
run = FitLoop.run
def timed(self):
    begun = time.perf_counter()
    run(self)
    print("fit loop", time.perf_counter() - begun, file=sys.stderr)
FitLoop.run = timed
sys.exit(main())
"""


def process(work: Path) -> list[Figure]:
    """A whole fit on stored vectors, and the help, against importing the libraries."""
    cache = work / "cache"
    run(*GEL_FIT, *fit(work), cwd=work, cache=cache)
    times: dict[str, list[float]] = {"import": [], "fit": [], "help": []}
    for _ in range(5):
        times["import"].append(run(*IMPORT, cwd=work, cache=cache).seconds)
        times["fit"].append(run(*GEL_FIT, *fit(work), cwd=work, cache=cache).seconds)
        times["help"].append(run(*GEL_FIT, "--help", cwd=work, cache=cache).seconds)
    base = min(times["import"])
    figures = []
    for what, key, target in ((f"gel-fit fit, {EPOCHS} epochs on stored vectors", "fit", 1.8), ("--help", "help", 0.2)):
        ratio = min(times[key]) / base
        measured = f"{min(times[key]):.1f} s : {base:.1f} s = {ratio:.2f}"
        figures.append(Figure(f"{what}, against the imports", measured, f"≤ {target}", ratio <= target))
    return figures


def loop(work: Path) -> list[Figure]:
    """The fit loop on stored vectors, with TensorBoard and checkpoints."""
    cache = work / "cache"
    run(*GEL_FIT, *fit(work), cwd=work, cache=cache)
    errs = [run(sys.executable, "-c", TIMED_FIT, *fit(work), cwd=work, cache=cache).err for _ in range(5)]
    seconds = min(float(err.split("fit loop")[1].split()[0]) for err in errs)
    return [Figure(f"fit loop, {EPOCHS} epochs on stored vectors", f"{seconds:.2f} s", "≤ 1.5 s", seconds <= 1.5)]


def compare(work: Path) -> list[Figure]:
    """The twelve models on the CPU, against twelve runs of the original study's training."""
    epochs = {backbone: original_epoch(work, backbone) for backbone in BACKBONES}
    original = sum(epochs.values()) * EPOCHS * RUNS_PER_BACKBONE
    each = ", ".join(f"{backbone} {seconds:.1f} s" for backbone, seconds in epochs.items())
    figures = []
    command = (*GEL_FIT, "compare", "--model.weights", "none", "--trainer.accelerator", "cpu", *drawn(work))
    with tempfile.TemporaryDirectory() as cache:
        for what, target, runs in (("nothing stored", 80, 1), ("all vectors stored", 200, 3)):
            seconds = min(run(*command, cwd=work, cache=Path(cache)).seconds for _ in range(runs))
            figures.append(
                Figure(
                    f"gel-fit compare of twelve models, {what}, against the original's way (an epoch: {each})",
                    f"{seconds:.1f} s : {original:.0f} s = 1/{original / seconds:.0f}",
                    f"1/{target}",
                    original / seconds >= target,
                )
            )
    return figures


def original_epoch(work: Path, backbone: str) -> float:
    """Seconds of an epoch of the original study's training: forward and backward through the whole network.

    A new first convolution with one channel and the head are trained; everything between is frozen but in training
    mode.
    """
    transform = v2.Compose(
        [
            v2.Grayscale(),
            v2.Resize((224, 224)),
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(10),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485], [0.229]),
        ]
    )
    pictures = datasets.ImageFolder(str(work / "pictures/dataset"), transform)
    train, val = torch.utils.data.random_split(pictures, [74, 18])
    network = models.get_model(backbone, weights=None).requires_grad_(False)
    name, first = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    fresh = nn.Conv2d(
        1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=first.bias is not None
    )
    network.set_submodule(name, fresh)
    name, last = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    network.set_submodule(name, MultiLayerHead(last.in_features, 2))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9)
    begun = time.perf_counter()
    network.train()
    for batch, labels in DataLoader(train, BATCH, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch), labels).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        for batch, _ in DataLoader(val, BATCH):
            network(batch)
    return time.perf_counter() - begun


def memory(work: Path) -> list[Figure]:
    """Peak memory over that of importing torch."""
    figures = []
    with tempfile.TemporaryDirectory() as empty:
        cache = Path(empty)
        base = run(sys.executable, "-c", "import torch", cwd=work, cache=cache).megabytes
        network = sum(value.nbytes for value in models.vgg16().state_dict().values()) / 2**20
        for what, backbone, limit in (
            ("gel-fit fit, ResNet18", "resnet18", 1200.0),
            ("gel-fit fit, VGG16", "vgg16", network + 1500),
            ("gel-fit fit, ResNet18, vectors stored", "resnet18", 400.0),
        ):
            over = run(*GEL_FIT, *fit(work, backbone), cwd=work, cache=cache).megabytes - base
            figures.append(Figure(f"peak memory, {what}", f"{over:.0f} MB", f"≤ {limit:.0f} MB", over <= limit))
    return figures


def folds(work: Path) -> list[Figure]:
    """Cross-validation of eight models, with the report, all vectors stored."""
    models = ("--backbones", "resnet18", "mobilenet_v2", "--model.weights", "none", "--trainer.accelerator", "cpu")
    command, cache = (*GEL_FIT, "compare", *models, *drawn(work)), work / "cache"
    run(*command, "--heads", "single", "--optimizers", "sgd", cwd=work, cache=cache)
    seconds = run(*command, "--folds", "5", "--repeats", "10", cwd=work, cache=cache).seconds
    what = "gel-fit compare --folds 5 --repeats 10 of eight models, all vectors stored"
    return [Figure(what, f"{seconds:.0f} s", "≤ 240 s", seconds <= 240)]
