import pytest
import torch
from conftest import refused
from test_backbones import OF_TIMM, ONE_OF_EACH, side_of
from torch import nn

from gel_lightning import LinearHead, Network
from gel_lightning.models.network import load_trunk
from gel_lightning.models.scratch import SCRATCH

PICTURES = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "unfreeze"),
    [*((name, 0.2) for name in (*ONE_OF_EACH, *OF_TIMM)), *(("resnet18", share) for share in (0, 0.6, 1))],
)
def test_wherever_it_is_cut_it_computes_the_same(name: str, unfreeze: float) -> None:
    network = Network(name, "none", LinearHead, 3, unfreeze).eval()
    assert not network.trunk_is_loaded
    network.double()  # BatchNorm is folded into the convolutions of a trunk, which changes the last bits
    side = side_of(name)
    pictures = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        features = network.trunk(pictures)
        assert features.shape == (3, *network.feature_shape(side))
        whole = load_trunk(name, "none").double()(pictures)
        vectors = network.vectors(features)
        if name == "efficientnet_b0":  # whose random weights magnify the rounding of folded ones
            assert torch.linalg.norm(vectors - whole) < 1e-3 * torch.linalg.norm(whole)
        else:
            torch.testing.assert_close(vectors, whole, rtol=1e-4, atol=1e-4)
        assert network(pictures).equal(network.classify(features))
    assert network(pictures).shape == (3, 3)


def test_tail_and_head_are_trained_and_the_trunk_is_not() -> None:
    network = Network("resnet18", "none", LinearHead, 2, 0.2).train()
    before = {name: value.clone() for name, value in network.trunk.state_dict().items()}
    norms = [layer for layer in network.tail.modules() if isinstance(layer, nn.BatchNorm2d)]
    moved = [norm.running_mean.clone() for norm in norms]
    network(PICTURES).sum().backward()
    assert all(parameter.grad is not None for parameter in network.tail.parameters())
    assert all(parameter.grad is None for parameter in network.trunk.parameters())
    assert all(value.equal(before[name]) for name, value in network.trunk.state_dict().items())
    assert not any(norm.running_mean.equal(mean) for norm, mean in zip(norms, moved, strict=True))


def test_a_tail_that_waits_stays_as_it_is() -> None:
    network = Network("resnet18", "none", LinearHead, 2, 0.2).train()
    network.train_tail(False)
    before = {name: value.clone() for name, value in network.tail.state_dict().items()}
    for _ in range(2):
        network(PICTURES).sum().backward()
        network.eval().train()
    assert all(value.equal(before[name]) for name, value in network.tail.state_dict().items())
    assert all(parameter.grad is None for parameter in network.tail.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    network.train_tail(True)
    network(PICTURES).sum().backward()
    assert not any(value.equal(before[name]) for name, value in network.tail.state_dict().items() if "running" in name)


def test_the_state_is_what_can_be_trained() -> None:
    network = Network("resnet18", "none", LinearHead, 2, 0.2)
    assert {name.partition(".")[0] for name in network.state_dict()} == {"tail", "head"}
    other = Network("resnet18", "none", LinearHead, 2, 0.2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
        network(PICTURES), other(PICTURES)  # both trunks are loaded
    other.load_state_dict(network.state_dict())
    assert {name.partition(".")[0] for name in other.state_dict()} == {"tail", "head"}
    assert all(value.equal(network.state_dict()[name]) for name, value in other.state_dict().items())


def test_the_trunk_follows_the_head_to_its_precision() -> None:
    network = Network("resnet18", "none", LinearHead).double()
    assert network(PICTURES.double()).dtype == torch.float64
    assert network.float()(PICTURES).dtype == torch.float32


@pytest.mark.parametrize("name", SCRATCH)
@pytest.mark.parametrize("side", [32, 41, 64])
def test_a_network_from_scratch_takes_pictures_of_any_size_and_is_trained_whole(name: str, side: int) -> None:
    network = Network(name, "none", LinearHead, 10, 1.0).train()
    pictures = torch.rand(2, 3, side, side)
    features = network.trunk(pictures)
    assert features.shape == pictures.shape
    network.classify(features).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(pictures).shape == (2, 10)


def test_a_network_from_scratch_is_another_with_another_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([value.flatten() for value in Network("small_cnn", "none", LinearHead, 2, 1.0).parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("name", SCRATCH)
def test_a_random_network_is_not_frozen(name: str, share: float) -> None:
    assert "--model.unfreeze 1" in refused(lambda: Network(name, "none", LinearHead, 2, share))


@pytest.mark.parametrize("weights", ["imagenet", "packaged", "weights.pth"])
def test_a_network_from_scratch_has_no_weights(weights: str) -> None:
    text = refused(lambda: Network("small_cnn", weights, LinearHead, 2, 1.0))
    assert "--model.weights none --model.unfreeze 1" in text
