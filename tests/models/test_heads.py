import pytest
import torch
from conftest import refused
from torch import nn

from gel_lightning import LinearHead, MultiLayerHead, NormalizedLinearHead
from gel_lightning.core.errors import GelError


@pytest.mark.parametrize("head", [LinearHead, MultiLayerHead, NormalizedLinearHead])
@pytest.mark.parametrize(("in_features", "classes"), [(512, 2), (4096, 2), (7, 10)])
def test_head_maps_features_to_one_logit_a_class(head: type[nn.Module], in_features: int, classes: int) -> None:
    logits = head(in_features, classes)(torch.randn(3, in_features))
    assert logits.shape == (3, classes)
    assert logits.requires_grad


def describe(head: nn.Module) -> list[str]:
    return [str(layer) for layer in head.modules() if not list(layer.children())]


def test_heads_are_those_of_the_original_study() -> None:
    assert describe(LinearHead(512, 2)) == ["Linear(in_features=512, out_features=2, bias=True)"]
    assert describe(MultiLayerHead(512, 2)) == [
        "Linear(in_features=512, out_features=512, bias=True)",
        "ReLU()",
        "Dropout(p=0.25, inplace=False)",
        "Linear(in_features=512, out_features=256, bias=True)",
        "ReLU()",
        "Dropout(p=0.5, inplace=False)",
        "Linear(in_features=256, out_features=2, bias=True)",
    ]


def test_sizes_and_dropouts_of_the_multi_layer_head_can_be_chosen() -> None:
    head = MultiLayerHead(20, 3, hidden=[5], dropout=[1.0])
    assert [tuple(value.shape) for value in head.parameters()] == [(5, 20), (5,), (3, 5), (3,)]
    features = torch.randn(4, 20)
    (bias,) = head(features).unique(dim=0)  # in training all activations are dropped
    assert bias.equal(list(head.parameters())[-1])
    assert len(head.eval()(features).unique(dim=0)) == 4
    assert describe(MultiLayerHead(20, 3, hidden=(), dropout=())) == describe(LinearHead(20, 3))


@pytest.mark.parametrize(("hidden", "dropout"), [((512,), (0.25, 0.5)), ((512, 256), (0.5,)), ((), (0.5,))])
def test_sizes_and_dropouts_of_different_number_are_an_error_that_names_both(
    hidden: tuple[int, ...], dropout: tuple[float, ...]
) -> None:
    with pytest.raises(GelError, match="one dropout for each hidden layer") as error:
        MultiLayerHead(20, 3, hidden, dropout)
    assert f"hidden {list(hidden)} and dropout {list(dropout)}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("width", [0, -1, 10**20])
def test_a_width_out_of_range_is_an_error(width: int) -> None:
    assert f"--model.head.hidden is {width}; give a number from 1 to 65,536" in refused(
        lambda: MultiLayerHead(20, 3, (5, width), (0.5, 0.5))
    )


@pytest.mark.parametrize("share", [-0.5, 1.5, float("nan"), float("inf")])
def test_a_dropout_out_of_range_is_an_error(share: float) -> None:
    assert f"--model.head.dropout is {share}; give a number from 0 to 1" in refused(
        lambda: MultiLayerHead(20, 3, (5, 5), (0.5, share))
    )


def test_the_normalized_head_takes_no_notice_of_how_long_a_vector_is() -> None:
    head, features = NormalizedLinearHead(20, 2), torch.randn(4, 20)
    torch.testing.assert_close(head(features), head(100 * features))
    torch.testing.assert_close(head(features), head.layers(features * (20**0.5 / features.norm(dim=1, keepdim=True))))
    assert head(torch.zeros(1, 20)).isfinite().all()
