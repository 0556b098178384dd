"""The methods section of a report, as a paper would describe them."""

from collections.abc import Iterable

from gel_lightning.comparison.summary import Summary
from gel_lightning.core.text import some_of

OPTIMISTIC = (
    "The cross-validated results of the best of several models are somewhat optimistic, because they were used to "
    "choose it; the results on the test pictures are not."
)
HEADS = {"single": "one linear layer", "multi": "several linear layers with ReLU and dropout"}


def methods(summary: Summary) -> list[tuple[str, str]]:
    """Headings and texts that describe pictures, training, choice and tests."""
    of_configs = any(record.model.config for record in summary.comparison.records)
    return [
        ("Pictures", _pictures(summary)),
        *([("Models", _models(summary))] if of_configs else []),
        ("Training", _training(summary)),
        ("Choice of the model", _choice(summary)),
        ("Intervals and tests", _tests(summary)),
    ]


def _pictures(summary: Summary) -> str:
    about = summary.comparison.about
    counts, names = about["pictures"], about["class_names"]
    size = _values(summary, "image_size")
    drawn = "drawn by gel-fit, not photographs of gels; " if about["drawn"] else ""
    dataset, colour = _values(summary, "dataset"), _values(summary, "colour")
    sides = "near-duplicates are never on both sides of a split"
    if dataset:
        sides = f"the test pictures are the official ones of {dataset}, whose near-duplicates were not looked for"
    channels = colour or "grey, repeated on three channels"
    square = f"a square of {size} by {size} pixels" if size.isdecimal() else "a square"
    return (
        f"{counts['train']} pictures for training, {counts['val']} for validation and {counts['test']} for testing"
        f"{''.join(f', {count} for testing as {name}' for name, count in about['test_sets'].items())}, "
        f"of {len(names)} classes ({some_of(names)}); {drawn}{sides}. Each is read as 8-bit {channels}, resized to "
        f"{square} and normalised as the weights of the backbone expect."
    )


def _models(summary: Summary) -> str:
    described = []
    for record in summary.comparison.records:
        level, row, name = record.levels, record.row, summary.comparison.names[record.model.name]
        side = f" at {row['image_size']} pixels" if row["image_size"] else ""
        trained = f"the last {100 * record.model.unfreeze:.0f} % trained" if record.model.unfreeze else "frozen"
        described.append(
            f"{name} is {level['backbone']}{side}, {trained}, with head {level['head']}, by {level['optimizer']}"
        )
    return f"{'; '.join(described)}."


def _training(summary: Summary) -> str:
    epoch = summary.comparison.about["epoch"]
    levels = [record.levels for record in summary.comparison.records]
    heads = _listed(
        f"{head} ({HEADS[head]})" if head in HEADS else head for head in _different(level["head"] for level in levels)
    )
    backbones = _listed(_different(level["backbone"] for level in levels))
    shares = _listed(_different(f"{100 * record.model.unfreeze:.0f} %" for record in summary.comparison.records))
    if shares == "0 %":
        text = f"The backbones ({backbones}) stay frozen; a head, {heads}, is trained on their features"
    else:
        text = f"Of the layers of the backbones ({backbones}), the last {shares} are trained with a head, {heads},"
    text += f" for {_values(summary, 'epochs')} epochs"
    if batch := _values(summary, "batch_size"):
        text += f" in batches of {batch}"
    text += f", by {_listed(_different(level['optimizer'] for level in levels))}"
    if rate := _values(summary, "learning_rate"):
        text += f" with a learning rate of {rate}"
    if schedule := _values(summary, "lr_scheduler"):
        text += f" and the schedule {schedule}"
    if weights := _values(summary, "class_weights"):
        text += f", the classes weighted in the loss ({weights})"
    if smoothing := _values(summary, "label_smoothing"):
        text += f", labels smoothed by {smoothing}"
    if mixup := _values(summary, "mixup"):
        text += f", features mixed (mixup, alpha {mixup})"
    text += f", on {_listed(_different(level['hardware'] for level in levels))}."
    if epoch["monitor"]:
        least = {"min": "lowest", "max": "highest"}[epoch["mode"]]
        return f"{text} Each fit keeps the epoch of the {least} {epoch['monitor']}."
    return f"{text} Each fit keeps its last epoch."


def _choice(summary: Summary) -> str:
    if summary.left_out:
        return (
            "The best model is the one with the highest accuracy in a cross-validation that leaves out one of "
            f"{summary.folds} groups of the training and validation pictures at a time; ties are broken by the lowest "
            "log loss. Groups connected by near-duplicates count as one. In each fit some of the other groups are held "
            f"out to choose the epoch. {OPTIMISTIC}"
        )
    if summary.folds:
        times = f", dealt {summary.repeats} times" if summary.repeats > 1 else ""
        return (
            f"The best model is the one with the highest mean accuracy in {summary.folds}-fold cross-validation of the "
            f"training and validation pictures together ({summary.groups} different ones){times}; ties are broken by "
            "the lowest log loss. All models share the folds, which are stratified and keep near-duplicates together; "
            f"in each fit some pictures of the other folds are held out to choose the epoch. {OPTIMISTIC}"
        )
    return (
        "The best model is the one with the highest accuracy on the validation pictures; ties are broken by the lowest "
        "log loss on them. The test pictures played no part in the choice, so that it does not bias the results on "
        "them."
    )


def _tests(summary: Summary) -> str:
    exact = "Shares of the fixed test pictures have exact binomial 95 % intervals (Clopper and Pearson 1934)."
    if not summary.folds:
        return f"{exact} One split does not show more than that."
    if summary.left_out:
        return (
            "Cross-validated metrics are over the pictures of all groups together. Accuracy has the 95 % interval of "
            "the corrected resampled t-test (Nadeau and Bengio 2003) over the groups, each weighted by its pictures "
            "(Cochran 1977, single-stage cluster sampling). Differences are tested likewise, with Holm's correction "
            f"(1979) over all pairs of models, at a level of 5 %. {exact}"
        )
    return (
        "Means over the fits have the 95 % interval of the corrected resampled t-test (Nadeau and Bengio 2003), which "
        "accounts for the training pictures that fits share. Differences are tested likewise, with Holm's correction "
        "(1979) over all pairs of models, at a level of 5 %. The effect of a factor is the mean difference between "
        f"models that differ in nothing else. {exact}"
    )


def _values(summary: Summary, column: str) -> str:
    """The values of a column of the results file; empty if an older version did not write it."""
    return _listed(_different(record.row[column] for record in summary.comparison.records if record.row[column]))


def _different(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _listed(names: Iterable[str]) -> str:
    *first, last = [*names] or [""]
    return f"{', '.join(first)} or {last}" if first else last
