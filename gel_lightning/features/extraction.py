"""Features of pictures: found where an earlier run has left them, computed where none has."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torchvision
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gel_lightning.core.errors import GelError
from gel_lightning.core.progress import picture_progress
from gel_lightning.core.store import Store
from gel_lightning.core.xla import PaddedBatches, on_xla, sync_xla
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.datasets import PictureDataset, StoredFeatures
from gel_lightning.data.images import DECODING, PictureError
from gel_lightning.data.reading import READING_THREADS
from gel_lightning.features.runtime import Runtime
from gel_lightning.models.network import Network

Item = TypeVar("Item")
Forward = Callable[[Tensor], Tensor]
"""From pictures to features."""

GPU_BATCH = 128
"""Pictures that go through the trunk at once on a GPU, if batches are not larger: with few it waits for the CPU."""
NO_DIGEST = b""
"""In place of the digest of a picture that cannot be read."""


def bytes_of_features(network: Network, image_size: int, half: bool) -> int:
    """How much the features of one picture take in the store."""
    return prod(network.feature_shape(image_size)) * (2 if half else 4)


def find_features(
    trainer: Trainer,
    network: Network,
    cache: PictureCache,
    pictures: PictureDataset,
    views: int = 1,
    *,
    runtime: Runtime,
    batch_size: int,
    half: bool = False,
    num_workers: int = 0,
    errors: dict[Path, PictureError] | None = None,
) -> StoredFeatures:
    """Finds what the trunk of a network gives for pictures, and computes on the trainer's device what is missing.

    The trainer's strategy and precision are used. Each rank computes its share, and the trunk is loaded only if
    something is missing.

    Args:
        trainer: whose devices are used.
        network: whose trunk is used.
        cache: where features are kept.
        pictures: n pictures.
        views: how many views of each there are.
        runtime: what computes them, which has been chosen for this trainer and network.
        batch_size: pictures that go through the trunk at once; on a GPU at least :data:`GPU_BATCH`.
        half: stores features in 16 bits.
        num_workers: processes that augment pictures beside another device than the CPU, where they would only compete
            with the trunk. Pictures themselves are decoded by threads, a batch while a device computes.
        errors: is filled with the pictures that cannot be read, which have no features; None raises the first of them.

    Raises:
        GelError: the backbone's weights cannot be had, or a file was changed meanwhile.
        PictureError: a picture cannot be read.
    """
    failed: dict[Path, PictureError] = {} if errors is None else errors
    digests = []
    for path, digest in zip(pictures.paths, cache.read(pictures.paths), strict=True):
        if isinstance(digest, PictureError):
            failed[path] = digest
        digests.append(NO_DIGEST if isinstance(digest, PictureError) else digest)
    double = trainer.precision.startswith("64")
    number = np.float16 if half else np.float64 if double else np.float32
    shape = network.feature_shape(pictures.image_size)
    stores = [
        Store(cache.root, _key(trainer, network, runtime, pictures, view, half), number, prod(shape))
        for view in range(views)
    ]

    def found() -> StoredFeatures:
        rows = [store.find(digests) for store in stores]
        return StoredFeatures(rows, shape, torch.float64 if double else torch.float32)

    def wanted(features: StoredFeatures) -> list[list[int]]:
        """The items to be computed of each view, those of a picture that is there several times once."""
        readable = np.array([path not in failed for path in pictures.paths])
        places = [np.flatnonzero(view.missing & readable).tolist() for view in features.views]
        unique = [{digests[place]: place for place in view}.values() for view in places]
        return [[view * len(pictures) + place for place in items] for view, items in enumerate(unique)]

    features = found()
    # Where ranks have a folder each, the first round leaves out what another one has computed.
    for rank, ranks in ((trainer.global_rank, trainer.world_size), (0, 1)):
        # All ranks agree here, and so none adds to what another one still looks through.
        if trainer.strategy.reduce_boolean_decision(not any(wanted(features))):
            break
        trunk = network.load_trunk()
        if trunk.fingerprint != network.fingerprint:
            raise GelError("the backbone's weights were changed meanwhile; run again")
        if not trainer.strategy.reduce_boolean_decision(runtime.prepare(trunk, pictures.shape)):
            runtime.give_up()  # on all ranks
            return find_features(
                trainer,
                network,
                cache,
                pictures,
                views,
                runtime=runtime,
                batch_size=batch_size,
                half=half,
                num_workers=num_workers,
                errors=errors,
            )
        own = [items[rank::ranks] for items in wanted(features)]
        begun = time.perf_counter()
        unread = _compute(trainer, partial(runtime, trunk), pictures, stores, own, batch_size, num_workers)
        failed |= unread
        computed = torch.tensor(sum(map(len, own)) - len(unread), device=trainer.strategy.root_device)
        cache.computed += int(cast(Tensor, trainer.strategy.reduce(computed, reduce_op="sum")))
        trainer.strategy.barrier()
        cache.seconds += time.perf_counter() - begun
        features = found()
    if errors is None and failed:
        raise next(iter(failed.values()))
    for item in (item for items in wanted(features) for item in items):
        path = pictures.paths[item % len(pictures)]
        raise GelError(f"{path}: was changed meanwhile, or its features in {cache.root}; run again")
    return features


def _key(
    trainer: Trainer, network: Network, runtime: Runtime, pictures: PictureDataset, view: int, half: bool
) -> dict[str, Any]:
    """Everything that features depend on besides the content of their picture."""
    augmentation = pictures.augmentation if view else None
    return {
        "kind": "features",
        "decoding": DECODING,
        "resizing": f"float32, torchvision {torchvision.__version__}",
        "image_size": pictures.image_size,
        **({"colour": "RGB"} if pictures.colour else {}),
        "view": view,
        **({"augmentation": augmentation.identity, "seed": augmentation.seed} if augmentation else {}),
        "backbone": network.backbone,
        "weights": network.fingerprint,
        **({"cut": network.cut.name} if network.cut.trained else {}),
        "torch": torch.__version__,
        **runtime.identity,
        "device": trainer.strategy.root_device.type,
        "precision": trainer.precision,
        **({"stored": "float16"} if half else {}),
    }


class _Decoded(Dataset[tuple[Tensor, bytes]]):
    """Pictures with the digests of the very files that they were read from.

    Attributes:
        errors: the pictures that cannot be read. In a batch they are black, with no digest.
    """

    def __init__(self, pictures: PictureDataset) -> None:
        self.pictures = pictures
        self.errors: dict[Path, PictureError] = {}

    def __getitem__(self, index: int) -> tuple[Tensor, bytes]:
        try:
            return self.pictures.decode(index)
        except PictureError as error:
            if index >= len(self.pictures):  # perhaps in a worker process, where nothing can be noted
                raise
            self.errors[self.pictures.paths[index]] = error.to_keep()
            return torch.zeros(self.pictures.shape), NO_DIGEST

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, bytes]]:
        """Decodes a batch, in threads unless it is augmented: that draws from the one generator of a process."""
        if max(indices) >= len(self.pictures):
            return [self[index] for index in indices]
        with ThreadPoolExecutor(READING_THREADS) as pool:
            return list(pool.map(self.__getitem__, indices))


def _compute(
    trainer: Trainer,
    trunk: Forward,
    pictures: PictureDataset,
    stores: Sequence[Store],
    wanted: Sequence[Sequence[int]],
    batch_size: int,
    num_workers: int,
) -> dict[Path, PictureError]:
    """Adds the features of the wanted items of each view to its store, and returns why others cannot be read."""
    device, precision, xla = trainer.strategy.root_device, trainer.precision_plugin, on_xla(trainer)
    options: dict[str, Any] = {}
    if device.type == "cuda":
        batch_size = max(batch_size, GPU_BATCH)
        options["pin_memory"] = True
    if xla:
        options["collate_fn"] = PaddedBatches(default_collate, batch_size)
    bar = trainer.progress_bar_callback
    shown = bar is not None and not getattr(bar, "is_only_bar", False) and trainer.is_global_zero  # one at a time
    decoded = _Decoded(pictures)
    with (
        isolate_rng(include_cuda=not xla),
        torch.no_grad() if xla else torch.inference_mode(),  # which XLA does not know
        precision.forward_context(),
        picture_progress("computing features", sum(map(len, wanted)), shown) as advance,
    ):
        for view, (store, items) in enumerate(zip(stores, wanted, strict=True)):
            if not items:
                continue
            workers = num_workers if view and device.type != "cpu" else 0
            loader = DataLoader(decoded, batch_size=batch_size, sampler=items, num_workers=workers, **options)
            with store.adding() as add:
                for digests, features in _one_behind(_features(trainer, trunk, loader)):
                    rows = features()[: len(digests)].to(torch.float64).flatten(1).numpy()
                    read = [place for place, digest in enumerate(digests) if digest != NO_DIGEST]
                    add([digests[place] for place in read], rows[read])
                    advance(len(digests))
                    if trainer.received_sigterm and trainer.world_size == 1:  # which its loops look for, too
                        raise SIGTERMException
    return decoded.errors


def _features(
    trainer: Trainer, trunk: Forward, loader: DataLoader[Any]
) -> Iterator[tuple[list[bytes], Callable[[], Tensor]]]:
    """Yields the digests of each batch, and what waits for its features and brings them to the CPU."""
    device = trainer.strategy.root_device
    for batch, digests in cast(Any, trainer.strategy.process_dataloader(loader)):
        values = batch.to(device, non_blocking=True)
        features = _forward(trunk, trainer.precision_plugin.convert_input(values))
        sync_xla(trainer)
        yield digests, _on_its_way(features)


def _one_behind(items: Iterator[Item]) -> Iterator[Item]:
    """Yields each item when the next one is there: a device then computes that one while this one is kept."""
    before = list(islice(items, 1))
    for item in items:
        yield before.pop()
        before.append(item)
    yield from before


def _forward(trunk: Forward, pictures: Tensor) -> Tensor:
    """The features of pictures, halved as often as it takes to fit them into the memory of a GPU.

    Raises:
        GelError: not even one fits.
    """
    try:
        return trunk(pictures)
    except torch.OutOfMemoryError as error:
        if len(pictures) == 1:
            raise GelError(
                "the GPU has too little memory free for one picture; end what else it runs, give a smaller "
                "--data.image_size, or --trainer.accelerator cpu"
            ) from error
    return torch.cat([_forward(trunk, half) for half in pictures.chunk(2)])


def _on_its_way(features: Tensor) -> Callable[[], Tensor]:
    """Begins to bring features to the CPU; what is returned waits until they are there, and for nothing after them."""
    if features.device.type != "cuda":
        return features.cpu
    host, arrived = features.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return host

    return wait
