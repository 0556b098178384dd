import json
import re
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from gel_lightning.data.drawn.gels import draw_gel
from gel_lightning.data.drawn.lookalikes import LOOK_ALIKES
from gel_lightning.data.images import read_picture
from gel_lightning.detector import VERSION, identity, read_detector
from gel_lightning.detector.pictures import read_sources
from gel_lightning.inference.exported import ExportedModel

LABS = SHARED / "gel/training_labs"


@pytest.fixture(scope="module")
def detector() -> ExportedModel:
    return ExportedModel(read_detector())


@pytest.fixture(scope="module")
def card() -> str:
    return resources.files("gel_lightning.detector").joinpath("README.md").read_text("utf-8")


def test_the_card_is_of_the_file(card: str) -> None:
    version, digest = re.fullmatch(r"detector (\w+) \(sha256 (\w{64})\)", identity()).groups()  # type: ignore[union-attr]
    assert version == VERSION
    assert f"version {version}" in card
    assert re.findall(r"[0-9a-f]{64}", card) == [digest]
    assert len(read_detector()) <= 20e6


def test_the_card_counts_what_it_was_trained_on(card: str, detector: ExportedModel) -> None:
    sources = read_sources()
    for name, number in json.loads(detector.metadata["training_pictures"]).items():
        listed = sum(source.path.startswith(f"{name}/") for source in sources)
        drawn = int(re.search(rf"\| {name} \| {listed} \| \d+ \| \d+ \| (\d+) \|", card)[1])  # type: ignore[index]
        assert 0.8 * listed + drawn < number <= listed + drawn  # some are kept aside
    assert "Apache" in detector.metadata["weights_licence"]
    assert "Apache License" in resources.files("gel_lightning.detector").joinpath("NOTICE").read_text("utf-8")


def test_it_knows_what_it_was_made_of(detector: ExportedModel) -> None:
    assert detector.class_names == ("gel", "not_gel")
    assert all(0.5 < threshold < 1 for threshold in detector.thresholds)
    assert detector.metadata["calibration"].startswith("calibrated on 321 ")
    assert detector.metadata["backbone"] == "efficientnet_lite0"


def classify(detector: ExportedModel, picture: Image.Image) -> np.ndarray:
    return detector(np.asarray(picture.convert("L"))[None, None])[0]


def test_it_tells_a_drawn_gel_from_a_drawn_text(detector: ExportedModel) -> None:
    rng = np.random.default_rng(12)
    assert classify(detector, draw_gel(rng)).argmax() == 0
    assert classify(detector, LOOK_ALIKES["text_page"](rng)).argmax() == 1


class Found(NamedTuple):
    gels: float
    impostors: float


def shares(detector: ExportedModel, folder: Path) -> Found:
    """The shares of gels and of others that are taken for gels."""
    answers = {
        name: [classify(detector, read_picture(path)).argmax() == 0 for path in sorted((folder / name).iterdir())]
        for name in detector.class_names
    }
    return Found(*(float(np.mean(answers[name])) for name in ("gel", "not_gel")))


@pytest.mark.real
@pytest.mark.skipif(not LABS.exists(), reason="the pictures of other labs are not here")
def test_it_is_as_right_about_what_it_was_trained_on_as_the_card_says(detector: ExportedModel, card: str) -> None:
    right = []
    for source in read_sources():
        if (path := LABS / source.path).exists():
            right.append((classify(detector, read_picture(path)).argmax() == 0) == source.path.startswith("gel/"))
    assert f"right about {sum(right)} of the {len(right)} pictures" in re.sub(r"\s+", " ", card)
    assert len(right) == 229


@pytest.mark.real
@pytest.mark.skipif(not (SHARED / "gel/test_images").exists(), reason="the originals' test pictures are not here")
def test_it_is_right_about_21_of_the_22_test_pictures_of_the_original_study(detector: ExportedModel) -> None:
    found = shares(detector, SHARED / "gel/test_images")
    assert 11 * found.gels + 11 * (1 - found.impostors) > 20.5
