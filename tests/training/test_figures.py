import io
from itertools import pairwise

import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.metrics import roc_auc_score

from gel_lightning.training.figures import (
    COLUMNS,
    MOST,
    MOST_CLASSES,
    NUMBERED,
    RIGHT,
    SHOWN,
    WRONG,
    Caption,
    class_figure,
    confusion_figure,
    roc_figure,
    sheet_figure,
)
from gel_lightning.training.metrics import class_metrics

TEN = [f"class_{number}" for number in range(10)]


def drawn(figure: Figure) -> bytes:
    """The figure as PNG: what cannot be drawn fails here, not when it is made."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def pyplot_stays_out_of_it():
    yield
    assert not plt.get_fignums(), "a figure was left open in pyplot"


@pytest.mark.parametrize("class_names", [["gel", "not_gel"], TEN])
def test_confusion_matrix_shows_each_count_in_the_row_of_its_actual_class(class_names: list[str]) -> None:
    classes = len(class_names)
    matrix = torch.arange(classes * classes).view(classes, classes)
    figure = confusion_figure(matrix, class_names, "Confusion matrix, test pictures")
    assert drawn(figure)
    (axes,) = figure.axes
    counts = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert counts == {(p, a): str(matrix[a, p].item()) for a in range(classes) for p in range(classes)}
    assert [label.get_text() for label in axes.get_yticklabels()] == class_names
    assert [label.get_text() for label in axes.get_xticklabels()] == class_names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "actual class")
    assert axes.get_title() == "Confusion matrix, test pictures"
    shares = matrix / matrix.sum(dim=1, keepdim=True)
    torch.testing.assert_close(torch.tensor(axes.images[0].get_array()), shares)


MANY = [f"class {number}" for number in range(51)]


def overlapping(labels: list[Text]) -> bool:
    """Whether any two neighbours of some texts share pixels."""
    boxes = [label.get_window_extent() for label in labels]
    return any(one.overlaps(other) for one, other in pairwise(boxes))


@pytest.mark.parametrize("class_names", [TEN, MANY, [name * 8 for name in MANY]])
def test_confusion_matrix_of_many_classes_is_legible(class_names: list[str]) -> None:
    classes = len(class_names)
    matrix = torch.ones(classes, classes, dtype=torch.long) + 20 * torch.eye(classes, dtype=torch.long)
    figure = confusion_figure(matrix, class_names, "Confusion matrix, test pictures")
    assert drawn(figure)
    (axes,) = figure.axes
    assert bool(axes.texts) == (classes <= NUMBERED)
    assert max(figure.get_size_inches()) < 13
    assert len(axes.get_yticklabels()) == classes
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert not overlapping(labels)
        assert min(label.get_fontsize() for label in labels) >= 5
        box = figure.bbox
        assert all(box.contains(*corner) for label in labels for corner in label.get_window_extent().get_points())
    assert axes.images[0].get_array().sum(axis=1).tolist() == pytest.approx([1] * classes)


@pytest.mark.parametrize("classes", [2, 10, 51, 200])
def test_bars_of_classes_are_sorted_by_f1(classes: int) -> None:
    rng = torch.Generator().manual_seed(classes)
    matrix = torch.randint(0, 9, (classes, classes), generator=rng) + torch.diag(torch.arange(classes))
    names = [f"class {number}" for number in range(classes)]
    figure = class_figure(matrix, names, "By class, test pictures")
    assert drawn(figure)
    metrics = class_metrics(matrix)
    order = metrics.f1.argsort(stable=True)[:MOST_CLASSES]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [names[label] for label in order]
    for axes, values in zip(figure.axes, metrics, strict=True):
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(values[order].tolist())
        assert f"{values.mean():.3f}" in axes.get_title(loc="left")
    assert not overlapping(figure.axes[0].get_yticklabels())


def test_confusion_matrix_of_a_class_without_pictures_is_drawn() -> None:
    figure = confusion_figure(torch.tensor([[3, 1], [0, 0]]), ["gel", "not_gel"], "")
    assert drawn(figure)
    assert figure.axes[0].images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]


def curves(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("class_names", "shown"), [(["gel", "not_gel"], ["gel"]), (["a", "b", "c"], ["a", "b", "c"]), (TEN, TEN)]
)
def test_roc_curve_of_each_class_has_its_area(class_names: list[str], shown: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(len(class_names), (200,), generator=generator)
    logits = torch.randn(200, len(class_names), generator=generator)
    logits[torch.arange(200), labels] += 1
    probabilities = logits.softmax(dim=1)
    figure = roc_figure(probabilities, labels, class_names, "ROC curve")
    assert drawn(figure)
    areas = [
        roc_auc_score(labels == class_names.index(name), probabilities[:, class_names.index(name)]) for name in shown
    ]
    assert curves(figure) == ["chance", *(f"{name}: area {area:.3f}" for name, area in zip(shown, areas, strict=True))]
    for line, area in zip(figure.axes[0].lines[1:], areas, strict=True):
        points = torch.tensor(line.get_xydata())
        assert torch.trapezoid(points[:, 1], points[:, 0]).item() == pytest.approx(area)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("false positive rate", "true positive rate")


def test_of_many_classes_the_three_worst_roc_curves_have_names() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(51, (2000,), generator=generator)
    logits = torch.randn(2000, 51, generator=generator)
    logits[torch.arange(2000), labels] += torch.linspace(0, 4, 51)[labels]
    figure = roc_figure(logits.softmax(dim=1), labels, MANY, "ROC curve")
    assert drawn(figure)
    areas = [roc_auc_score(labels == label, logits.softmax(dim=1)[:, label]) for label in range(51)]
    chance, others, *named = curves(figure)
    assert chance == "chance"
    assert others == f"48 others; all: mean area {sum(areas) / 51:.3f}"
    worst = sorted(range(51), key=lambda label: areas[label])[:3]
    assert named == [f"{MANY[label]}: area {areas[label]:.3f}" for label in worst]


def test_class_without_pictures_has_no_roc_curve() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    figure = roc_figure(probabilities, torch.tensor([0, 1, 0]), ["a", "b", "c"], "")
    assert drawn(figure)
    assert curves(figure) == ["chance", "a: area 1.000", "b: area 1.000"]
    figure = roc_figure(probabilities[:, :2], torch.tensor([0, 0, 0]), ["gel", "not_gel"], "")
    assert drawn(figure)
    assert curves(figure) == ["chance"]


@pytest.mark.parametrize("number", [1, 5, 6, 7, MOST, MOST + 7])
def test_sheet_shows_pictures_with_captions_up_to_the_most(number: int) -> None:
    colours = (RIGHT, WRONG, "black")
    captions = [Caption(torch.full((1, 8, 9), i / number), f"gel → not_gel {i}", colours[i % 3]) for i in range(number)]
    figure = sheet_figure(captions, "Training pictures")
    assert drawn(figure)
    kept = captions[:MOST]
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [caption.text for caption in kept]
    assert [text.get_color() for text in axes.texts] == [caption.colour for caption in kept]
    for image, caption in zip(axes.images, kept, strict=True):
        values = torch.tensor(image.get_array()).squeeze(-1)
        torch.testing.assert_close(values, caption.picture[0, :1, :1].expand(SHOWN, SHOWN))
    assert figure.get_suptitle() == "Training pictures"

    # The axes are in inches from the lower left corner of the sheet.
    width, height = figure.get_size_inches()
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, width), (0, height))
    assert axes.get_position().bounds == pytest.approx((0, 0, 1, 1))
    places = [image.get_extent() for image in axes.images]
    for place, ((left, right, bottom, top), text) in enumerate(zip(places, axes.texts, strict=True)):
        assert (right - left, top - bottom) == pytest.approx((SHOWN / 100, SHOWN / 100))  # a dot for each pixel
        x, y = text.get_position()
        assert x == pytest.approx((left + right) / 2)
        assert top < y < top + 0.2, "the caption is not right above its picture"
        assert 0 < left < right < width
        assert 0 < bottom < y < height - 0.4, "it is out of the sheet, or under the title"
        for other in places[:place]:
            assert left > other[1] or right < other[0] or top < other[2], "two pictures overlap"
    assert len({round(left, 6) for left, *_ in places}) == min(len(kept), COLUMNS)
    rows = sorted({round(bottom, 6) for _, _, bottom, _ in places})
    assert len(rows) == -(-len(kept) // COLUMNS)
    assert rows[0] < 0.5, "a row of the sheet is empty"


def test_sheet_scales_each_picture_to_its_place() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(400).expand(1, 600, 800)  # finer than what is shown
    steps = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]])
    figure = sheet_figure([Caption(stripes, "fine"), Caption(steps, "coarse")], "")
    fine, coarse = (torch.tensor(image.get_array()).squeeze(-1) for image in figure.axes[0].images)
    assert fine.shape == coarse.shape == (SHOWN, SHOWN)
    torch.testing.assert_close(fine[:, 5:-5], torch.full((SHOWN, SHOWN - 10), 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(coarse[[0, 0, -1, -1], [0, -1, 0, -1]], steps.flatten())


def test_sheet_takes_colour_pictures_values_out_of_range_and_none_at_all() -> None:
    captions = [Caption(torch.rand(3, 8, 8), "colour"), Caption(torch.randn(1, 8, 8) * 5, "wild")]
    figure = sheet_figure(captions, "")
    assert drawn(figure)
    colour, wild = (torch.tensor(image.get_array()) for image in figure.axes[0].images)
    assert colour.shape == (SHOWN, SHOWN, 3)
    torch.testing.assert_close(colour[0, 0], captions[0].picture[:, 0, 0])
    assert wild.min() == 0
    assert wild.max() == 1
    assert drawn(sheet_figure([], "No pictures"))
