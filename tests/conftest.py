"""Tiny pictures and the places of the real ones."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

if TYPE_CHECKING:
    from gel_lightning.cli.parser import Parser

# Read when torch is first imported, here or in a process of a test: several tests run at once, each in one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CONFIGS = ROOT / "configs"
# Marks of tests that a machine may be unable to run.
MAY_SKIP = ("skipif", "xfail", "real", "network")
# What makes a run tiny; the pictures come in small batches, so that their order matters.
TINY = (
    *("--data.image_size", "32", "--data.num_workers", "0", "--data.batch_size", "5"),
    *("--model.weights", "none", "--trainer.accelerator", "cpu"),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FIT = ("--config", CONFIGS / "resnet18_multi_sgd_cpu.yaml", *TINY, "--trainer.max_epochs", "4")


class Ran(NamedTuple):
    """What a run of gel-fit gave back and printed."""

    status: int
    out: str
    err: str


def gel_fit(*args: object, cwd: Path) -> Ran:
    """Runs gel-fit in this process, in a folder.

    Warnings go to stderr, as they do outside of pytest; so does the traceback of what main does not catch. One
    thread computes, here and in :func:`start_gel_fit`, so that both give the same to the last bit.
    """
    # Imported here because it takes time that the tests of drawn pictures, say, need not spend.
    import torch

    from gel_lightning.cli.main import main

    out, err = StringIO(), StringIO()
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["gel-fit"])
        patch.setattr(warnings, "showwarning", lambda *a, **_: err.write(warnings.formatwarning(*a[:4])))
        warnings.resetwarnings()
        for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", hidden)
        try:
            torch.set_num_threads(1)
            status = main([str(arg) for arg in args])
        except SystemExit as stop:
            status = int(stop.code or 0)
        except Exception:
            status = -1
            traceback.print_exc()
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(threads)
    return Ran(status, out.getvalue(), err.getvalue())


def start_gel_fit(*args: object, cwd: Path, name: str = "run", **options: Any) -> "subprocess.Popen[bytes]":
    """Starts gel-fit in a process of its own, in a folder; it prints to the files NAME.out and NAME.err there.

    Its options may name classes of the tests.
    """
    with (cwd / f"{name}.out").open("wb") as out, (cwd / f"{name}.err").open("wb") as err:
        command = [sys.executable, "-m", "gel_lightning", *map(str, args)]
        path = os.pathsep.join(
            map(str, (*(ROOT / "tests" / room for room in ("", "cli", "core", "features", "training")), ROOT))
        )
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        return subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=out, stderr=err, **{"preexec_fn": _heed_ctrl_c, **options}
        )


def _heed_ctrl_c() -> None:
    """Undoes what the background of a script does to a process: Ctrl-C is to end it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def file_size_limit(number: int) -> Iterator[None]:
    """Lets this process write no file beyond a number of bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(action: Callable[[], Any]) -> str:
    """The text of the error that an action ends in, which is one line."""
    from gel_lightning.core.errors import GelError

    with pytest.raises(GelError) as error:
        action()
    text = str(error.value)
    assert "\n" not in text
    return text


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of pytest's processes to ask for it makes, and all share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            folder.mkdir()
            make(folder)
    return folder


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def save_picture(path: Path, seed: int, striped: bool) -> None:
    """Saves a noisy 40 x 36 picture: horizontal stripes or blobs, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (9, 1) if striped else (9, 10))
    values = np.kron(coarse, np.ones((4, 40) if striped else (4, 4))) + rng.normal(0, 20, (36, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


def save_class(folder: Path, count: int, first_seed: int, striped: bool) -> None:
    """Saves tiny pictures of one class, named after the folder and numbered from 0."""
    for number in range(count):
        save_picture(folder / f"{folder.name}_{number}.png", first_seed + number, striped)


def save_data_set(folder: Path, per_class: int = 10, seed: int = 0) -> Path:
    """Saves class folders `gel` and `not_gel` of tiny pictures."""
    save_class(folder / "gel", per_class, seed, striped=True)
    save_class(folder / "not_gel", per_class, seed + 1000, striped=False)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With GEL_NO_SKIPS set, as in CI, a test fails that skips for want of what can be installed."""
    report = yield
    if report.skipped and "GEL_NO_SKIPS" in os.environ and not any(map(item.get_closest_marker, MAY_SKIP)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache folder for the tests and what they start, in place of the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Path(os.environ["XDG_CACHE_HOME"]) / "gel-lightning"


@pytest.fixture(scope="session", autouse=True)
def random_networks_settled_once() -> Iterator[None]:
    """Keeps the BatchNorm statistics of each random network, which take most of the time of making it."""
    from gel_lightning.models import weights

    settle, kept = weights._settle_batch_norm, dict[Any, Any]()

    def settled(network: Any, *noise: Any) -> None:
        state = network.state_dict()
        key = (type(network), *[(name, float(value.sum())) for name, value in list(state.items())[:3]], str(noise))
        if key not in kept:
            settle(network, *noise)
            kept[key] = {name: value.clone() for name, value in state.items() if "running" in name or "num_" in name}
        network.load_state_dict(kept[key], strict=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_settle_batch_norm", settled)
        yield


@pytest.fixture(scope="session")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, "Parser"]:
    """The parser of each command, by the command."""
    from gel_lightning.cli import find
    from gel_lightning.cli.help import COMMANDS
    from gel_lightning.cli.parser import Parser

    made: list[Parser] = []
    build = Parser.__init__

    def recorded(self: Parser, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "__init__", recorded)
        for command in COMMANDS:
            gel_fit(*command.split(), "--unknown", cwd=tmp_path_factory.mktemp("parsers"))
    by_command: dict[str, Any] = {
        parser.prog.replace(" [options]", "").removeprefix("gel-fit "): parser for parser in made
    }
    by_command["find"] = find.Parser()  # which is no Parser of Lightning's
    return {command: by_command[command] for command in COMMANDS}


FRESH = """
import json, sys
import gel_lightning
found = {"after the package": [name for name in ("torch", "lightning") if name in sys.modules]}
from torchvision.transforms import v2
from gel_lightning.data.augmentation import Augmentation
from gel_lightning.models.weights import check_weights
check_weights("resnet18", "none")
found["after a backbone of torchvision"] = [name for name in ("timm",) if name in sys.modules]
crop = v2.RandomResizedCrop(32, antialias=True)
found["identity"] = Augmentation([crop, v2.RandomRotation(10)], 0).identity
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def fresh_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own has imported after a while, and what it takes for the identity of an augmentation."""

    def make(folder: Path) -> None:
        ran = subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, capture_output=True, timeout=120, check=True)
        (folder / "found.json").write_bytes(ran.stdout)

    found: dict[str, Any] = json.loads((made_once(tmp_path_factory, "fresh_process", make) / "found.json").read_text())
    return found


@pytest.fixture(scope="module")
def no_plots() -> Iterator[None]:
    """Leaves out the figures of reports that this process makes: they take most of the time of a tiny comparison."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gel_lightning.comparison.report.page.plots", lambda _: [])
        yield


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Leaves the figures out of the TensorBoard pages that this process makes: they take half of the time of a fit."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_draw", "_project"):
            patch.setattr(f"gel_lightning.training.tensorboard_pages.TensorBoardPages.{name}", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def train_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tiny pictures of each class."""
    return save_data_set(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="session")
def test_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four other tiny pictures of each class."""
    return save_data_set(tmp_path_factory.mktemp("test"), per_class=4, seed=5000)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures and weights, for tests marked `real`."""
    if not SHARED.exists():
        pytest.skip("the real pictures and weights are not here")
    return SHARED


@pytest.fixture(scope="session")
def pictures(train_dir: Path, test_dir: Path) -> tuple[object, ...]:
    """The options that name the tiny pictures."""
    return ("--data.train_dir", train_dir, "--data.test_dir", test_dir)


@pytest.fixture(scope="session")
def two_fits(tmp_path_factory: pytest.TempPathFactory, pictures: tuple[object, ...]) -> Path:
    """The folder of two equal fits that ran at once, each in a process: `a` and `b`."""

    def make(folder: Path) -> None:
        # Of their own, since vectors may differ in their last bits with the batch they were computed in.
        vectors = ("--data.cache_dir", folder / "cache")
        fits = [start_gel_fit("fit", *FIT, *pictures, *vectors, cwd=folder, name=name) for name in "ab"]
        (folder / "status").write_text(" ".join(str(fit.wait(timeout=300)) for fit in fits))

    return made_once(tmp_path_factory, "two_fits", make)


@pytest.fixture(scope="session")
def run_dir(two_fits: Path) -> Path:
    """The version folder of one of the two fits."""
    return two_fits / "lightning_logs/resnet18_multi_sgd_cpu/version_0"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    installed = next(filter(None, map(shutil.which, BROWSERS)), None)
    if installed is None:
        pytest.skip("there is no Chromium: install the package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., Path]:
    """Makes empty files in a folder, and returns the folder."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "data"

    return make
