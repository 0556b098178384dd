"""Feature vectors: found where an earlier run has left them, computed where none has."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
import torchvision
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gel_lightning.core.errors import GelError
from gel_lightning.core.progress import picture_progress
from gel_lightning.core.store import Store, StoredRows
from gel_lightning.core.xla import PaddedBatches, on_xla, sync_xla
from gel_lightning.data.cache import PictureCache
from gel_lightning.data.datasets import PictureDataset
from gel_lightning.data.images import DECODING
from gel_lightning.data.reading import READING_THREADS
from gel_lightning.models.backbones import Backbone

Item = TypeVar("Item")

GPU_BATCH = 128
"""Pictures that go through the backbone at once on a GPU, if batches are not larger: with few it waits for the CPU."""


class TakesFeatures(Protocol):
    """A module that takes feature vectors, ``[N, num_features]``, wherever it takes pictures."""

    @property
    def backbone_name(self) -> str:
        """One of :data:`~gel_lightning.models.backbones.LAST_LINEAR`."""

    @property
    def num_features(self) -> int:
        """The length of its feature vectors."""

    @property
    def backbone_fingerprint(self) -> str:
        """Of the backbone's weights; known without loading them if they were loaded before."""

    @property
    def backbone(self) -> Backbone:
        """The backbone, loaded when it is first asked for."""


def find_features(
    cache: PictureCache,
    trainer: Trainer,
    model: TakesFeatures,
    pictures: PictureDataset,
    views: int,
    batch_size: int,
    num_workers: int,
) -> list[StoredRows]:
    """Finds the feature vectors of pictures, and computes those that are missing on the trainer's device.

    The trainer's strategy and precision are used. Each of its processes computes its share, and the backbone is
    loaded only if a vector is missing.

    Args:
        cache: where vectors are kept.
        trainer: whose devices are used.
        model: whose backbone is used.
        pictures: n pictures.
        views: how many views of each there are.
        batch_size: pictures that go through the backbone at once; on a GPU at least :data:`GPU_BATCH`.
        num_workers: processes that augment pictures beside another device than the CPU, where they would but take
            turns with the backbone. Pictures themselves are decoded by threads, a batch while a device computes.

    Returns:
        The vectors of each view, n each.

    Raises:
        GelError: the backbone's weights cannot be had, or a file was changed meanwhile.
        PictureError: a picture cannot be read.
    """
    digests = cache.digests(pictures.paths)
    weights = model.backbone_fingerprint
    number = np.float64 if trainer.precision.startswith("64") else np.float32
    stores = [
        Store(cache.root, _key(trainer, model.backbone_name, weights, pictures, view), number, model.num_features)
        for view in range(views)
    ]
    # Where processes have a folder each, the first round leaves out what another one has computed.
    for rank, processes in ((trainer.global_rank, trainer.world_size), (0, 1)):
        found = [store.find(digests) for store in stores]
        # All processes agree here, and so none adds to what another one still looks through.
        if trainer.strategy.reduce_boolean_decision(not any(rows.missing.any() for rows in found)):
            return found
        if model.backbone.fingerprint != weights:
            raise GelError("the backbone's weights were changed meanwhile; run again")
        missing = [{digests[i]: i for i in np.flatnonzero(rows.missing).tolist()} for rows in found]
        wanted = [[v * len(pictures) + i for i in places.values()][rank::processes] for v, places in enumerate(missing)]
        begun = time.perf_counter()
        _compute(trainer, model.backbone, pictures, stores, wanted, batch_size, num_workers)
        own = torch.tensor(sum(map(len, wanted)), device=trainer.strategy.root_device)
        cache.computed += int(cast(Tensor, trainer.strategy.reduce(own, reduce_op="sum")))
        trainer.strategy.barrier()
        cache.seconds += time.perf_counter() - begun
    found = [store.find(digests) for store in stores]
    for i in np.flatnonzero(np.any([rows.missing for rows in found], axis=0)).tolist():
        raise GelError(f"{pictures.paths[i]}: was changed meanwhile, or its vector in {cache.root}; run again")
    return found


def _key(trainer: Trainer, backbone: str, weights: str, pictures: PictureDataset, view: int) -> dict[str, Any]:
    """Everything that a vector depends on besides the content of its picture."""
    augmentation = pictures.augmentation if view else None
    return {
        "kind": "features",
        "decoding": DECODING,
        "resizing": f"float32, torchvision {torchvision.__version__}",
        "image_size": pictures.image_size,
        "view": view,
        **({"augmentation": augmentation.identity, "seed": augmentation.seed} if augmentation else {}),
        "backbone": backbone,
        "weights": weights,
        "torch": torch.__version__,
        "device": trainer.strategy.root_device.type,
        "precision": trainer.precision,
    }


class _Decoded(Dataset[tuple[Tensor, bytes]]):
    """Pictures with the digests of the very files that they were read from."""

    def __init__(self, pictures: PictureDataset) -> None:
        self.pictures = pictures

    def __getitem__(self, index: int) -> tuple[Tensor, bytes]:
        return self.pictures.decode(index)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, bytes]]:
        """Decodes a batch, in threads unless it is augmented: that draws from the one generator of a process."""
        if max(indices) >= len(self.pictures):
            return [self[index] for index in indices]
        with ThreadPoolExecutor(READING_THREADS) as pool:
            return list(pool.map(self.pictures.decode, indices))


def _compute(
    trainer: Trainer,
    backbone: Backbone,
    pictures: PictureDataset,
    stores: Sequence[Store],
    wanted: Sequence[Sequence[int]],
    batch_size: int,
    num_workers: int,
) -> None:
    """Adds the vectors of the wanted items of each view to its store."""
    device, precision, xla = trainer.strategy.root_device, trainer.precision_plugin, on_xla(trainer)
    options: dict[str, Any] = {}
    if device.type == "cuda":
        batch_size = max(batch_size, GPU_BATCH)
        options["pin_memory"] = True
    if xla:
        options["collate_fn"] = PaddedBatches(default_collate, batch_size)
    bar = trainer.progress_bar_callback
    shown = bar is not None and not getattr(bar, "is_only_bar", False) and trainer.is_global_zero  # one at a time
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
            loader = DataLoader(
                _Decoded(pictures), batch_size=batch_size, sampler=items, num_workers=workers, **options
            )
            with store.adding() as add:
                for digests, vectors in _one_behind(_vectors(trainer, backbone, loader)):
                    add(digests, vectors()[: len(digests)].to(torch.float64).numpy())
                    advance(len(digests))


def _vectors(
    trainer: Trainer, backbone: Backbone, loader: DataLoader[Any]
) -> Iterator[tuple[list[bytes], Callable[[], Tensor]]]:
    """Yields the digests of each batch, and what waits for its vectors and brings them to the CPU."""
    device = trainer.strategy.root_device
    for batch, digests in cast(Any, trainer.strategy.process_dataloader(loader)):
        values = batch.to(device, non_blocking=True)
        vectors = _forward(backbone, trainer.precision_plugin.convert_input(values))
        sync_xla(trainer)
        yield digests, _on_its_way(vectors)


def _one_behind(items: Iterator[Item]) -> Iterator[Item]:
    """Yields each item when the next one is there: a device then computes that one while this one is kept."""
    before = list(islice(items, 1))
    for item in items:
        yield before.pop()
        before.append(item)
    yield from before


def _forward(backbone: Backbone, pictures: Tensor) -> Tensor:
    """The features of pictures, halved as often as it takes to fit them into the memory of a GPU.

    Raises:
        GelError: not even one fits.
    """
    try:
        return cast(Tensor, backbone(pictures))
    except torch.OutOfMemoryError as error:
        if len(pictures) == 1:
            raise GelError(
                "the GPU has too little memory free for one picture; end what else it runs, give a smaller "
                "--data.image_size, or --trainer.accelerator cpu"
            ) from error
    return torch.cat([_forward(backbone, half) for half in pictures.chunk(2)])


def _on_its_way(vectors: Tensor) -> Callable[[], Tensor]:
    """Begins to bring vectors to the CPU; what is returned waits until they are there, and for nothing after them."""
    if vectors.device.type != "cuda":
        return vectors.cpu
    host, arrived = vectors.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return host

    return wait
