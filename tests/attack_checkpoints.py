"""Attacks on checkpoints: each field removed, mistyped or replaced, and each region of the file damaged.

    python tests/attack_checkpoints.py [--fits N]

runs `gel-fit predict` on all of them and a resumed `gel-fit fit` on some, in this process, and counts what comes out.
Nothing may come out but the result of the untouched file, or one line of error.
"""

import argparse
import io
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
from conftest import FIT, Ran, gel_fit, save_data_set

CANARY = "PWNED"
REMOVED = object()
MISTYPED: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "text", "\x1b[31m\nred", [], {}, [[]], {"a": {}}),
    *(torch.zeros(0), torch.zeros(3), torch.full((2, 256), float("nan")), torch.zeros(1).expand(2**20, 2**20)),
)
HOSTILE: tuple[Any, ...] = (
    "os.system",
    "subprocess.Popen",
    "torch.hub.load",
    "local:///etc/passwd",
    "http://127.0.0.1:9/bomb.ckpt",
    "a/../../../victim",
    "/dev/zero",
    "\0",
    10**6,
    [10**9] * 3,
    ["x"] * 10**5,
    {"class_path": "os.system", "init_args": {"command": f"touch {CANARY}"}},
    {"class_path": "torch.nn.LSTM", "init_args": {"num_layers": 10**9}},
    {"class_path": "torch.nn.Linear", "init_args": {"device": "os.system"}},
    {"class_path": "gel_lightning.MultiLayerHead", "init_args": {"hidden": [10**9], "dropout": [0.5]}},
    {"class_path": "torch.nn.TransformerEncoderLayer", "init_args": {"activation": "os.system"}},
    {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os.system"}},
)
VALUES = (REMOVED, *MISTYPED, *HOSTILE)


class Attack(NamedTuple):
    """A checkpoint that somebody has changed: what was done, and the change, from the bytes of a whole one."""

    name: str
    make: Callable[[bytes], bytes]


def field_attacks(
    checkpoint: dict[str, Any], values: tuple[Any, ...] = (REMOVED, *MISTYPED, *HOSTILE)
) -> Iterator[Attack]:
    """Removes each field, and replaces it by each value."""
    for place in places(checkpoint):
        for value in VALUES:
            yield Attack(f"{'.'.join(map(str, place))} = {_text(value)}", _changed(place, value))


def damage_attacks(size: int, regions: int) -> Iterator[Attack]:
    """Flips a bit in each region, puts zeros there, and cuts the file off there."""
    numbers = random.Random(0)
    for region in range(regions):
        place = size * region // regions + numbers.randrange(max(size // regions, 1))
        yield Attack(f"bit flipped at {place}", _flipped(place, numbers.randrange(8)))
        yield Attack(f"zeros at {place}", _zeroed(place))
        yield Attack(f"cut off at {place}", _cut(place))


def replace_field(checkpoint: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    """Removes or replaces a field, given by the keys that lead to it."""
    *parents, last = place
    owner: Any = checkpoint
    for key in parents:
        owner = owner[key]
    if value is REMOVED:
        del owner[last]
    else:
        owner[last] = deepcopy(value)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys that lead to each field, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*place, key)
        yield from places(item, (*place, key))


def _changed(place: tuple[Any, ...], value: Any) -> Callable[[bytes], bytes]:
    def make(whole: bytes) -> bytes:
        checkpoint = torch.load(io.BytesIO(whole), weights_only=True)
        replace_field(checkpoint, place, value)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        return content.getvalue()

    return make


def _flipped(place: int, bit: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def _zeroed(place: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:place] + bytes(len(whole[place : place + 4096])) + whole[place + 4096 :]


def _cut(place: int) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:place]


def _text(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor{list(value.shape)}"
    return "removed" if value is REMOVED else f"{value!r:.60}"


def outcome(ran: Ran, same: bool) -> str:
    """What came out of a run: ``result``, ``other result``, ``one line`` or what it must never be."""
    if ran.status == 0:
        return ("result" if same else "other result") if not ran.err else "printed on stderr"
    line = ran.err.startswith("gel-fit: error: ") and ran.err.count("\n") == 1 and "\x1b" not in ran.err
    return "one line" if ran.status in (1, 2) and line else "traceback"


class Target:
    """A folder with a run that was fitted, where attacked checkpoints are used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        save_data_set(folder / "train")
        save_data_set(folder / "test", per_class=2, seed=5000)
        self.fit_options = (
            *FIT,
            "--data.train_dir",
            "train",
            "--data.test_dir",
            "test",
            "--model.head.hidden",
            "[8,8]",
        )
        schedule = ("--model.lr_scheduler", "StepLR", "--model.lr_scheduler.step_size", "2")
        self.fit_options = (*self.fit_options, *schedule)
        ran = gel_fit("fit", *self.fit_options, "--trainer.max_epochs", "2", cwd=folder)
        assert ran.status == 0, ran.err
        (self.last,) = folder.rglob("last.ckpt")
        self.whole = self.last.read_bytes()
        self.checkpoint = torch.load(self.last, weights_only=True)
        self.files = self._files()
        assert self.predict(self.whole) == "result"

    def predict(self, content: bytes) -> str:
        """What comes out of predicting with a checkpoint."""
        (self.folder / "s.ckpt").write_bytes(content)
        options = ("--ckpt_path", "s.ckpt", "--data.predict_dir", "test", "--data.num_workers", "0")
        ran = gel_fit("predict", *options, "--trainer.accelerator", "cpu", cwd=self.folder)
        path = self.folder / "predictions.csv"
        rows = path.read_text() if path.exists() else ""
        path.unlink(missing_ok=True)
        if ran.status == 0 and not hasattr(self, "rows"):
            self.rows = rows
        return self._checked(outcome(ran, rows == getattr(self, "rows", rows)), ran)

    def resume(self, content: bytes) -> str:
        """What comes out of resuming a fit from a checkpoint, which may train otherwise."""
        run = self.folder / "resumed/checkpoints"
        run.mkdir(parents=True)
        (run / "last.ckpt").write_bytes(content)
        options = (*self.fit_options, "--trainer.max_epochs", "3", "--ckpt_path", run / "last.ckpt")
        ran = gel_fit("fit", *options, "--results_file", "resumed/results.csv", cwd=self.folder)
        shutil.rmtree(run.parent)
        return self._checked(outcome(ran, True), ran)

    def _checked(self, text: str, ran: Ran) -> str:
        self.ran = ran
        changed = [
            name for name, before in self.files.items() if not Path(name).exists() or Path(name).read_bytes() != before
        ]
        if changed or any(self.folder.rglob(CANARY)):
            return "EXECUTED OR DESTROYED"
        return text

    def _files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


ALLOWED = ("result", "one line")
SAID = ("hyper_parameters.class_names.", "drawn ")
"""Beginnings of the names of attacks on what a checkpoint may say of itself: its answers then differ."""


def main() -> int:
    """Runs all attacks, and prints how many came out how."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="Runs every Nth attack on a field.")
    parser.add_argument("--regions", type=int, default=200, help="Of the file that are damaged.")
    parser.add_argument("--fits", type=int, default=200, help="How many of the attacks a fit is resumed from.")
    given = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder))
        attacks = list(islice(field_attacks(target.checkpoint), 0, None, given.every))
        attacks += damage_attacks(len(target.whole), given.regions)
        some = random.Random(1).sample(attacks, min(given.fits, len(attacks)))
        for command, run, chosen in (("predict", target.predict, attacks), ("fit", target.resume, some)):
            counts: Counter[str] = Counter()
            for attack in chosen:
                text = run(attack.make(target.whole))
                if text == "other result" and attack.name.startswith(SAID):
                    text = "result"
                counts[text] += 1
                if text not in ALLOWED:
                    bad += 1
                    print(f"{command}: {text}: {attack.name}: {target.ran.err[-300:]}", flush=True)
            print(f"{command}: {len(chosen)} attacks: {dict(counts)}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
