"""`gel-fit data`: check, draw and cache."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Column

from gel_lightning.cli.console import print_stores
from gel_lightning.cli.help import PAGES
from gel_lightning.cli.parser import Parser, check_seed
from gel_lightning.cli.quiet import hide_known_warnings
from gel_lightning.cli.terminal import SafeTable, print_line
from gel_lightning.core.store import clear_stores, default_cache_dir, list_stores
from gel_lightning.data.datamodule import DATA_ROOT
from gel_lightning.data.folders import LabelledPictures


def data_command(args: Sequence[str]) -> int:
    """Runs `gel-fit data check`, `gel-fit data draw` or `gel-fit data cache`.

    Args:
        args: the command line after `data`.

    Returns:
        The exit status: 1 if a picture cannot be read.
    """
    # Imported here because they take time that the other commands need not spend.
    from gel_lightning.data.check import check, readable_pictures
    from gel_lightning.data.drawn.dataset import draw_data_set

    checks = Parser(description=PAGES["data check"].summary)
    checks.add_argument("--data.train_dir", type=Path, default=DATA_ROOT / "dataset", help="Training pictures.")
    checks.add_argument("--data.test_dir", type=Path | None, help="Test pictures.")
    checks.add_argument("--quality", action="store_true", help="Finds blurred, dark, overexposed and blank pictures.")
    checks.add_argument("--labels", action="store_true", help="Finds labels that a model of the others doubts.")
    checks.add_argument("--model.backbone", type=str, default="resnet18", help="Network of that model.")
    checks.add_argument("--model.weights", type=str, default="imagenet", help="Its pretrained weights.")
    draws = Parser(description=PAGES["data draw"].summary)
    draws.add_argument("--to", type=Path, required=True, help="Folder for dataset and test_images.")
    draws.add_argument("--seed", type=int, default=42, help="The same seed draws the same pictures.")
    caches = Parser(description=PAGES["data cache"].summary)
    caches.add_argument("--data.cache_dir", type=Path, default=default_cache_dir(), help="Folder where it is kept.")
    caches.add_argument("--clear", action="store_true", help="Removes all of it.")
    parser = Parser(prog="gel-fit data", description="Commands about folders of pictures.")
    commands = parser.add_subcommands()
    commands.add_subcommand("check", checks, help="Looks at the pictures.")
    commands.add_subcommand("draw", draws, help="Draws pictures for use with no network.")
    commands.add_subcommand("cache", caches, help="Lists the feature vectors that are kept, or removes them.")
    config = parser.parse_args(list(args))
    if config.subcommand == "check":
        status = check(config.check.data.train_dir, config.check.data.test_dir)
        if config.check.quality or config.check.labels:
            folder = config.check.data.train_dir
            pictures, groups = readable_pictures(folder)
            if config.check.quality:
                _print_poor(folder, pictures)
            if config.check.labels:
                _print_doubts(folder, pictures, groups, config.check.model.backbone, config.check.model.weights)
        return status
    if config.subcommand == "cache":
        root = config.cache.data.cache_dir.expanduser()
        if config.cache.clear:
            print_line(f"{clear_stores(root) / 1e6:.1f} MB removed from {root}")
        else:
            print_stores(root, list_stores(root))
        return 0
    check_seed(config.draw.seed, "--seed")
    print_line(f"drawn pictures: {draw_data_set(config.draw.to, config.draw.seed)}")
    return 0


def _print_poor(folder: Path, pictures: LabelledPictures) -> None:
    """Lists the pictures of poor quality."""
    from gel_lightning.data.check import short_path
    from gel_lightning.data.quality import poor_pictures

    poor = poor_pictures(pictures.paths)
    print_line(f"{len(poor)} of {len(pictures.paths)} pictures are blurred, dark, overexposed or blank.")
    for path, words in poor.items():
        print_line(f"  {short_path(path, folder)}: {', '.join(words)}")


def _print_doubts(
    folder: Path, pictures: LabelledPictures, groups: NDArray[np.intp], backbone: str, weights: str
) -> None:
    """Lists the pictures whose labels are doubtful."""
    from gel_lightning.data.check import short_path
    from gel_lightning.training.doubts import doubtful_labels

    hide_known_warnings()
    doubts = doubtful_labels(pictures, groups, backbone, weights, default_cache_dir())
    print_line(
        f"{len(doubts)} of {len(pictures.paths)} pictures look more like another class to a model that was trained on "
        f"the other pictures ({backbone}, weights: {weights})."
    )
    if not doubts:
        return
    table = SafeTable(Column("picture", overflow="fold"), "its class", "probability", "rather", box=None)
    for doubt in doubts:
        own, other = (pictures.class_names[label] for label in (pictures.labels[doubt.place], doubt.likelier))
        table.add_row(short_path(pictures.paths[doubt.place], folder), own, f"{doubt.probability:.3f}", other)
    Console(markup=False, emoji=False, highlight=False).print(table)
    print_line("Look at them: some are labelled wrongly, others are only unusual.")
