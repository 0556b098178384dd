"""The conclusions of a comparison in plain words that follow the numbers."""

from collections.abc import Sequence

from scipy.stats import fisher_exact

from gel_lightning.comparison.original import original_results
from gel_lightning.comparison.statistics import LEVEL, Effect, Estimate
from gel_lightning.comparison.summary import ModelSummary, Summary
from gel_lightning.core.text import some_of
from gel_lightning.training.figures import NUMBERED

NO_BREAK = "\u00a0"


def answer(summary: Summary) -> list[str]:
    """The paragraphs that say which model is best, whether that may be chance, and which factors matter."""
    return [
        text
        for text in (
            *(_caution(summary), _best(summary), _pairs(summary), _effects(summary)),
            *(_carries(summary, name) for name in summary.models[0].named),
            _advice(summary),
        )
        if text
    ]


def effect_in_words(effect: Effect) -> str:
    """Says whether a factor matters: no difference is shown if the interval contains zero."""
    difference = effect.difference
    if not difference.shown:
        return f"no difference shown between {effect.first} and {effect.second} ({_points(effect)})"
    return f"{effect.first} is better than {effect.second} by {_points(effect)}"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{'100' if share == 1 else f'{100 * share:.1f}'}{NO_BREAK}%"


def interval(estimate: Estimate) -> str:
    """The ends of an interval; empty if there is none."""
    low, high = estimate.low, estimate.high
    return f"{percent(low)} to {percent(high)}" if low == low else ""  # NaN if there is none


def not_worse(summary: Summary) -> list[ModelSummary]:
    """The best model and those not shown to be worse."""
    best = summary.models[0].name
    worse = {pair.second for pair in summary.pairs if pair.first == best and pair.shown}
    return [model for model in summary.models if model.name not in worse]


def _caution(summary: Summary) -> str:
    about = summary.comparison.about
    of_random = {key for key, weights in about["weights"].items() if weights["name"] == "none"}
    models = {model.name: model.record.model for model in summary.models}
    random = [
        name for name, model in models.items() if model.unfreeze < 1 and (model.config or model.backbone) in of_random
    ]
    all_random = len(random) == len(models)
    made_up = ["drawn pictures"] * about["drawn"] + ["a random backbone"] * all_random
    text = []
    if made_up:
        what = " and ".join(made_up)
        text.append(f"This is a demonstration with {what}: its results say nothing about real pictures.")
    if random and not all_random:
        text.append(f"The backbone of {some_of(random)} is random: those results say nothing about the network.")
    if any(model.record.device == "XLA:CPU" for model in summary.models):
        text.append("The models called tpu ran on the CPU through XLA; their times are not those of a TPU.")
    return " ".join(text)


def _best(summary: Summary) -> str:
    best, count = summary.models[0], len(summary.models)
    tested = f"right about {best.right} of the {best.total} test pictures, {_with_interval(best.test_accuracy)}"
    subject = f"The model is {best.name}."
    if count > 1:
        subject = f"The best of {count} models is {best.name}: {_choice(summary)}."
        tested += ", which played no part in the choice"
    if not summary.folds:
        return f"{subject} It was {tested}."
    pictures = len({p for fold in best.record.folds for p in fold.paths})
    times = f", {summary.repeats} times over" if summary.repeats > 1 else ""
    folds = f"{summary.folds - 1} of {summary.folds} {'groups' if summary.left_out else 'folds'} of {pictures} pictures"
    return (
        f"{subject} Trained on {folds} and tested on the other, each in turn{times}, it was right for "
        f"{_with_interval(best.estimates['accuracy'])}. It was also {tested}."
    )


def _choice(summary: Summary) -> str:
    """Says how the best model was chosen."""
    best, *others = summary.models
    accuracy, loss = best.chosen_by
    where = "in the cross-validation"
    if not summary.folds:
        where = f"on the {best.record.row['val_pictures']} validation pictures, {percent(accuracy)}"
    level = [model.name for model in others if round(model.chosen_by[0] - accuracy, 9) == 0]
    if not level:
        return f"it has the highest accuracy {where}"
    names = _listed(level) if len(level) < 4 else f"{len(level)} others"
    lowest = f"of these the lowest log loss there, {loss:.3g}"
    return f"it has the highest accuracy {where}, level with {names}, and {lowest}"


def _pairs(summary: Summary) -> str:
    if len(summary.models) < 2:
        return ""
    best, *others = summary.models
    if not summary.folds:
        alike = sum(model.test_accuracy.high >= best.test_accuracy.low for model in others)
        if not alike:
            others_interval = "that of the other model" if len(others) == 1 else "those of all others"
            return f"Its interval lies above {others_interval}. gel-fit compare --folds 5 --repeats 10 tells more."
        which = "all others" if alike == len(others) else f"{alike} of the {len(others)} others"
        return (
            f"{best.total} pictures and one split do not show that it is better than {which}: their intervals overlap. "
            "gel-fit compare --folds 5 --repeats 10 tells more."
        )
    shown = sum(pair.shown for pair in summary.pairs)
    if not shown:
        return f"No model is shown to be better than another: of the {_pairs_of(summary)}, none differs significantly."
    worse = [model for model in others if model not in not_worse(summary)]
    than = f"than {_listed([model.name for model in worse])}" if len(worse) < len(others) else "than all others"
    text = f"It is shown to be better {than}" if worse else "It is not shown to be better than any other"
    if worse and len(worse) < len(others):
        text += f", and not than the other {len(others) - len(worse)}"
    return f"{text}; of the {_pairs_of(summary)}, {shown} {'differs' if shown == 1 else 'differ'} significantly."


def _effects(summary: Summary) -> str:
    by_factor: dict[str, list[str]] = {}
    for effect in summary.effects:
        by_factor.setdefault(effect.factor, []).append(effect_in_words(effect))
    return " ".join(f"{factor.capitalize()}: {'; '.join(words)}." for factor, words in by_factor.items())


def _carries(summary: Summary, name: str) -> str:
    """Says how far the results on the test pictures hold on another test set."""
    best, models = summary.models[0], summary.models
    right, total, accuracy, by_class = best.named[name]
    classes = [
        f"{number} of the {count} of {label}"
        for label, (number, count) in zip(summary.comparison.class_names, by_class, strict=True)
        if count
    ]
    text = (
        f"How far that carries: of {name}, {best.name} was right about {right} of {total} pictures, "
        f"{_with_interval(accuracy)}{f': {_listed(classes)}' if len(classes) <= NUMBERED else ''}. "
    )
    if len(models) > 1:
        here = percent(sum(model.test_accuracy.value for model in models) / len(models))
        there = percent(sum(model.named[name].accuracy.value for model in models) / len(models))
        text += f"All {len(models)} models: {there} on average, after {here} of the test pictures. "
    table = [[best.right, best.total - best.right], [right, total - right]]
    chance = fisher_exact(table).pvalue
    differs = "is lower" if accuracy.value < best.test_accuracy.value else "is higher"
    shown = f"{differs} than" if chance < LEVEL else "does not differ significantly from"
    return (
        f"{text}The accuracy of {best.name} {shown} that on the test pictures (Fisher's exact test, p = {chance:.2g})."
    )


def _advice(summary: Summary) -> str:
    alike = not_worse(summary)
    fastest = min(alike, key=lambda model: model.record.training_seconds)
    text = ""
    if summary.folds and len(alike) > 1:
        text = (
            f"Of the {len(alike)} that may be as good, {fastest.name} was the quickest to train, "
            f"in {duration(fastest.record.training_seconds)}. "
        )
    if not summary.of_gels:
        return text.strip()
    first = max(original_results().values(), key=lambda result: result.right)
    return text + (
        f"For comparison: the best of the original study's 24 models was right about {first.right} of {first.total} "
        f"other test pictures, {_with_interval(first.accuracy)}."
    )


def duration(value: float) -> str:
    """A time with its unit."""
    if value < 120:
        return f"{value:.1f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _with_interval(estimate: Estimate) -> str:
    ends = interval(estimate)
    return percent(estimate.value) + (f" (95{NO_BREAK}% interval: {ends})" if ends else "")


def _points(effect: Effect) -> str:
    value, low, high, _ = effect.difference
    ends = f", 95{NO_BREAK}% interval {points(low)} to {points(high)}" if low == low else ""
    return f"{100 * value:.1f} points{ends}"


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _pairs_of(summary: Summary) -> str:
    return f"{len(summary.pairs)} pairs of models" if len(summary.pairs) > 1 else "only pair of models"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
