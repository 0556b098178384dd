from itertools import product

import pytest

from gel_lightning.models.spec import STUDY, ModelSpec, study_model, titles


@pytest.mark.parametrize("number", STUDY.values())
def test_the_models_of_the_study_are_known_by_their_numbers(number: int) -> None:
    model = study_model(number)
    assert model.study_number == number
    assert model.columns["model_id"] == number
    assert ModelSpec.of_row({name: str(value) for name, value in model.columns.items()}) == model
    assert model.name == f"{model.title.replace(' ', '_')}_{model.accelerator}"
    head = {"single": "LinearHead", "multi": "MultiLayerHead"}[model.head]
    optimizer = {"sgd": "SGD", "adam": "Adam"}[model.optimizer]
    described = {
        "backbone": model.backbone,
        "weights": None,
        "head": {"class_path": f"gel_lightning.{head}"},
        "optimizer": {"class_path": f"torch.optim.{optimizer}", "init_args": {}},
    }
    made = ModelSpec.of_settings(described, model.accelerator)
    assert (made.name, made.columns, made.levels) == (model.name, model.columns, model.levels)


def test_the_names_of_all_models_differ() -> None:
    models = [
        ModelSpec(backbone, head, "SGD", accelerator, unfreeze=share)
        for backbone, head, accelerator, share in product(
            ("resnet18", "vgg16"), ("LinearHead", "my.heads.Deep"), ("cpu", "gpu", ""), (0.0, 0.2, 1.0)
        )
    ]
    assert len({model.name for model in models}) == len(models)
    assert len(set(titles(models))) == len(models)


def test_a_class_of_any_module_has_its_bare_name() -> None:
    model = ModelSpec("vgg16", "my.heads.Deep", "my.Lion", "gpu")
    assert model.name == "vgg16_Deep_lion_gpu"
    assert model.study_number is None
    assert model.columns["model_id"] == ""


def test_unfrozen_layers_are_in_the_name_and_make_another_model() -> None:
    frozen, unfrozen = (ModelSpec("resnet18", "single", "sgd", "cpu", unfreeze=share) for share in (0.0, 0.2))
    assert (frozen.study_number, unfrozen.study_number) == (2, None)
    assert unfrozen.name == "resnet18_single_sgd_unfreeze0.2_cpu"
    assert titles([frozen, unfrozen]) == ["resnet18 single sgd", "resnet18 single sgd unfreeze0.2"]
    assert (frozen.columns["unfreeze"], unfrozen.columns["unfreeze"]) == ("", 0.2)


def test_the_hardware_is_named_where_it_differs() -> None:
    models = [ModelSpec("resnet18", "single", "sgd", accelerator) for accelerator in ("cpu", "gpu")]
    assert titles(models) == ["resnet18 single sgd cpu", "resnet18 single sgd gpu"]
    assert titles(models[:1]) == ["resnet18 single sgd"]
