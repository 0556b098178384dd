import hashlib
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from test_backbones import ONE_OF_EACH
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import v2

from gel_lightning.core.errors import GelError
from gel_lightning.models import weights as weights_module
from gel_lightning.models.architectures import ARCHITECTURES
from gel_lightning.models.backbones import IMAGENET_VERSION, check_image_size, whole_network
from gel_lightning.models.network import Trunk, load_trunk
from gel_lightning.models.scratch import SCRATCH
from gel_lightning.models.weights import fingerprint, known_fingerprint

torch.set_num_threads(1)  # on tiny pictures several threads mostly wait for each other

LITE = "efficientnet_lite0"
SMALL = "mobilenet_v2"  # the quickest to write, read and send
State = dict[str, Tensor]


class Pair(NamedTuple):
    """The random backbone of a name, and a plain torchvision network with weights of its own."""

    name: str
    random: Trunk
    plain: nn.Module


def plain_network(name: str) -> nn.Module:
    """A whole network as a training would leave it: BatchNorm statistics fit what passes through."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = timm.create_model("tf_efficientnet_lite0") if name == LITE else get_model(name, weights=None)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            with torch.no_grad():  # not ones and zeros, which it would do no harm to forget
                module.weight += 0.2 * torch.rand(module.num_features, generator=generator)
                module.bias += 0.2 * torch.rand(module.num_features, generator=generator)
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64, generator=generator))
    return network.eval()


@pytest.fixture(
    scope="module", params=["resnet18", "vgg16", "mobilenet_v3_large", "mobilenet_v2", "efficientnet_lite0"]
)
def pair(request: pytest.FixtureRequest) -> Pair:
    backbone = load_trunk(request.param, "none")
    return Pair(request.param, backbone, plain_network(request.param))


@pytest.fixture(scope="module")
def small_state() -> State:
    """The state dict of a whole torchvision network."""
    return plain_network(SMALL).state_dict()


def without_last(name: str, state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith(f"{ARCHITECTURES[name].last_linear}.")}


def one_line(error: pytest.ExceptionInfo[GelError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# What a backbone computes


def test_features_are_what_the_networks_own_last_linear_layer_takes_in(pair: Pair, tmp_path: Path) -> None:
    name, _, plain = pair
    grey = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    seen: list[Tensor] = []
    last = plain.get_submodule(ARCHITECTURES[name].last_linear)
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    normalised = 255 * grey / 128 - 127 / 128
    if name != LITE:
        transforms = get_model_weights(name)[IMAGENET_VERSION].transforms()
        normalised = v2.functional.normalize(grey.repeat(1, 3, 1, 1), transforms.mean, transforms.std)
    with torch.no_grad():
        plain(normalised.expand(-1, 3, -1, -1))
    hook.remove()
    assert seen[0].std() > 1e-3, "the network is too dull to test anything"

    path = tmp_path / "weights.pth"
    for state in (plain.state_dict(), without_last(name, plain.state_dict())):
        torch.save(state, path)
        backbone = load_trunk(name, str(path))
        features = backbone(grey)
        assert features.shape == (3, last.in_features)
        # BatchNorm is folded into the convolutions, which changes the last bits.
        torch.testing.assert_close(features, seen[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(backbone(grey.repeat(1, 3, 1, 1)), features, rtol=0, atol=0)
    path.unlink()  # VGG16 has half a gigabyte


def test_backbone_is_frozen(pair: Pair) -> None:
    backbone = pair.random
    pictures = torch.rand(2, 1, 32, 32, requires_grad=True)
    state = {key: value.clone() for key, value in backbone.state_dict().items() if value.ndim < 2}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    nn.Sequential(backbone, nn.ReLU()).train()
    assert backbone.train() is backbone
    assert not any(module.training for module in backbone.modules())
    first = backbone(pictures)
    assert not first.requires_grad
    assert first.equal(backbone(pictures)), "dropout is at work"
    assert all(backbone.state_dict()[key].equal(value) for key, value in state.items()), "it has moved"


def test_random_features_differ_from_picture_to_picture(pair: Pair) -> None:
    generator = torch.Generator().manual_seed(2)
    contrast = torch.rand(8, 1, 1, 1, generator=generator)
    features = pair.random(contrast * torch.rand(8, 1, 32, 32, generator=generator))
    assert features.std(dim=0).mean() > 0.02 * features.abs().mean(), "a head could learn nothing from them"
    assert features.abs().mean() > 1e-3


def test_random_weights_are_always_the_same_and_leave_the_global_generator_alone(pair: Pair) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = load_trunk(pair.name, "none")
    assert torch.get_rng_state().equal(before)
    own = pair.random.state_dict()
    assert all(value.equal(own[key]) for key, value in again.state_dict().items())
    assert again.fingerprint == pair.random.fingerprint


def test_fingerprint_changes_with_any_value_of_the_network() -> None:
    network = plain_network(SMALL)
    before = fingerprint(network)
    assert fingerprint(network) == before
    names = list(network.state_dict())
    for name in (names[0], names[-1], next(n for n in names if n.endswith("running_var"))):
        value = network.state_dict()[name].view(-1)
        kept = value[-1].item()
        value[-1] = kept + 1
        assert fingerprint(network) != before, name
        value[-1] = kept
    assert fingerprint(network) == before


def test_features_of_a_random_network_tell_pictures_apart(pair: Pair) -> None:
    features = pair.random(torch.rand(4, 1, 8, 8).repeat_interleave(28, 2).repeat_interleave(28, 3))
    assert features.std(dim=0).mean() > 0.01 * features.abs().mean()


# Weights from a file


def test_old_files_and_half_precision_are_read(small_state: State, tmp_path: Path) -> None:
    pictures = torch.rand(2, 1, 32, 32)
    torch.save(small_state, tmp_path / "full.pth")
    full = load_trunk(SMALL, str(tmp_path / "full.pth"))
    old = {key: value for key, value in small_state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_trunk(SMALL, str(tmp_path / "old.pth"))(pictures).equal(full(pictures))
    half = {key: value.half() if value.is_floating_point() else value for key, value in small_state.items()}
    torch.save(half, tmp_path / "half.pth")
    torch.testing.assert_close(
        load_trunk(SMALL, str(tmp_path / "half.pth"))(pictures), full(pictures), rtol=0.05, atol=0.05
    )


def test_any_path_to_the_file_will_do(small_state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(small_state, tmp_path / "weights.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    paths = ("weights.pth", "~/weights.pth", str(tmp_path / "weights.pth"))
    assert len({load_trunk(SMALL, path).fingerprint for path in paths}) == 1


def without(key: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("features.0.0.weight"), ["features.0.0.weight is missing"]),
        (without("features.0.1.running_mean"), ["features.0.1.running_mean is missing"]),
        (lambda state: state | {"neck.bias": torch.zeros(1)}, ["neck.bias is not part of it"]),
        (
            lambda state: state | {"features.0.1.bias": torch.zeros(33)},
            ["features.0.1.bias has shape (33,), not (32,)"],
        ),
        (
            lambda state: state | {"classifier.1.weight": torch.zeros(2, 7)},
            ["classifier.1.weight has shape (2, 7), not (classes, 1280)"],
        ),
        (lambda state: {}, ["features.0.0.weight is missing", " more; "]),
        (lambda state: {"conv1.weight": torch.zeros(1)}, ["features.0.0.weight is missing", " more; "]),
    ],
    ids=["missing weight", "missing buffer", "extra", "shape", "shape of the last layer", "empty", "other network"],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: Callable[[State], State], named: list[str], small_state: State, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(small_state), path)
    with pytest.raises(GelError) as error:
        load_trunk(SMALL, str(path))
    text = one_line(error)
    for part in (str(path), SMALL, "--model.weights", *named):
        assert part in text


def test_another_number_of_classes_is_no_matter(small_state: State, tmp_path: Path) -> None:
    torch.save(
        small_state | {"classifier.1.weight": torch.zeros(2, 1280), "classifier.1.bias": torch.zeros(2)}, tmp_path / "w"
    )
    assert load_trunk(SMALL, str(tmp_path / "w"))(torch.rand(1, 1, 32, 32)).shape == (1, 1280)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.path, "boom")


def saved(value: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


TENSORS = {"a": torch.zeros(3), "b": torch.ones(300)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"path,predicted\n",
        b"\x89PNG\r\n\x1a\n",
        bytes(range(256)),
        saved(TENSORS)[:-100],
        saved(TENSORS, zipped=False)[:-100],
        saved(TENSORS).replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v9"),
        saved([torch.zeros(1)]),
        saved({"state_dict": TENSORS}),
        saved(torch.zeros(1)),
        pickle.dumps({"a": 1}, protocol=2),
    ],
    ids=lambda content: f"{len(content)} bytes",
)
def test_file_that_is_no_state_dict_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(GelError) as error:
        load_trunk(SMALL, str(path))
    text = one_line(error)
    assert text.startswith(f"{path}: not a state dict of plain tensors, or damaged")
    assert "weights_only" not in text, "torch's advice to load unsafely was passed on"


@pytest.mark.parametrize("zipped", [True, False])
def test_file_whose_loading_would_run_code_does_not_run_it(zipped: bool, small_state: State, tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    path.write_bytes(saved(small_state | {"extra": Bomb(trace)}, zipped))
    with pytest.raises(GelError, match="not a state dict of plain tensors") as error:
        load_trunk(SMALL, str(path))
    one_line(error)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "the bomb is a dud, and tests nothing"


def test_file_that_cannot_be_opened_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(GelError, match=r"absent\.pth: no such weights file.*--model.weights, or imagenet, or none"):
        load_trunk(SMALL, str(tmp_path / "absent.pth"))
    with pytest.raises(GelError, match="cannot be read") as error:
        load_trunk(SMALL, str(tmp_path))
    one_line(error)


def test_unknown_backbone_is_an_error_that_names_the_choices() -> None:
    with pytest.raises(GelError, match="no backbone 'resnet19'") as error:
        load_trunk("resnet19", "none")
    assert "choose resnet18, resnet152" in one_line(error)
    assert "convnext" in one_line(error)


# ImageNet weights, from a server of our own in torchvision's place


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.cut = 0
        self.chunked = False
        self.requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.requests += 1
        self.send_response(200)
        sent = server.body[: len(server.body) - server.cut]
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            sent = b"%x\r\n" % len(server.body) + sent
        else:
            self.send_header("Content-Length", str(len(server.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = True

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(small_state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Sends the state dict of a whole network, under a name that holds its checksum as torchvision's do."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.body = saved(small_state)
        name = f"net-{hashlib.sha256(server.body).hexdigest()[:8]}.pth"
        weights = get_model_weights(SMALL)[IMAGENET_VERSION].value
        monkeypatch.setattr(weights, "url", f"http://127.0.0.1:{server.server_address[1]}/models/{name}")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("no_proxy", "*")
        yield server
        server.shutdown()


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_imagenet_weights_are_fetched_once_and_kept(server: Server, small_state: State, tmp_path: Path) -> None:
    first = load_trunk(SMALL, "imagenet")
    assert server.requests == 1
    assert [path.read_bytes() for path in cached(tmp_path)] == [server.body]
    server.shutdown()
    server.server_close()
    second = load_trunk(SMALL, "imagenet")
    torch.save(small_state, tmp_path / "own.pth")
    own = load_trunk(SMALL, str(tmp_path / "own.pth"))
    for backbone in (first, second):
        assert backbone.fingerprint == own.fingerprint
        state = backbone.state_dict()
        assert all(value.equal(state[key]) for key, value in own.state_dict().items())


def wrong_checksum(server: Server) -> None:
    server.body += b"?"


def cut_off(server: Server) -> None:
    server.cut = len(server.body) // 2


def cut_off_in_a_chunk(server: Server) -> None:
    cut_off(server)
    server.chunked = True


def unreachable(server: Server) -> None:
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("fault", [wrong_checksum, cut_off, cut_off_in_a_chunk, unreachable])
def test_imagenet_weights_that_cannot_be_had_are_an_error_with_ways_on(
    fault: Callable[[Server], None], server: Server, tmp_path: Path
) -> None:
    fault(server)
    with pytest.raises(GelError) as error:
        load_trunk(SMALL, "imagenet")
    text = one_line(error)
    assert text.startswith(f"the ImageNet weights of {SMALL} cannot be had (")
    for way in ("--model.weights PATH", "--model.weights none", str(tmp_path / "hub"), ".pth"):
        assert way in text
    assert not cached(tmp_path), "half a file would be taken for the whole one in the next run"


def test_damaged_file_in_the_cache_is_an_error_of_one_line(server: Server, tmp_path: Path) -> None:
    load_trunk(SMALL, "imagenet")
    (file,) = cached(tmp_path)
    for content in (server.body[:-1000], b"<html>", b"hello world\n"):
        file.write_bytes(content)
        with pytest.raises(GelError, match="cannot be had") as error:
            load_trunk(SMALL, "imagenet")
        assert file.name in one_line(error)


def test_file_in_the_cache_is_compared_with_the_checksum_in_its_name(
    server: Server, small_state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_trunk(SMALL, "imagenet")
    (file,) = cached(tmp_path)
    compared: list[Path] = []
    compare = weights_module._compare_checksum
    monkeypatch.setattr(weights_module, "_compare_checksum", lambda path: compared.append(path) or compare(path))
    load_trunk(SMALL, "imagenet")
    assert not compared  # the file is the one that was downloaded
    torch.save(small_state | {"features.0.0.weight": small_state["features.0.0.weight"] + 1}, file)
    with pytest.raises(GelError, match="its SHA-256 begins with") as error:
        load_trunk(SMALL, "imagenet")
    assert str(file) in one_line(error) or file.name in one_line(error)
    file.write_bytes(server.body)
    load_trunk(SMALL, "imagenet")
    load_trunk(SMALL, "imagenet")
    assert len(compared) == 2  # once for each state of the file


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, small_state: State, tmp_path: Path) -> None:
    weight = small_state["features.0.0.weight"].clone()
    weight[0, 0, 0, 0] = value
    torch.save(small_state | {"features.0.0.weight": weight}, tmp_path / "w.pth")
    with pytest.raises(GelError, match="not finite"):
        load_trunk(SMALL, str(tmp_path / "w.pth"))


def test_a_bit_that_is_another_is_found(small_state: State, tmp_path: Path) -> None:
    content = bytearray(saved(small_state))
    content[len(content) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(GelError, match="CRC"):
        load_trunk(SMALL, str(tmp_path / "w.pth"))


# Fingerprints that are known without loading the weights


def test_fingerprint_is_known_until_the_file_may_be_another(small_state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    assert known_fingerprint(SMALL, str(path)) is None
    torch.save(small_state, path)
    assert known_fingerprint(SMALL, str(path)) is None
    first = load_trunk(SMALL, str(path)).fingerprint
    assert known_fingerprint(SMALL, str(path)) == first
    assert known_fingerprint("resnet18", str(path)) is None

    # A file of the same name, size and time of change.
    small_state = {key: value + 1 if key == "features.0.0.weight" else value for key, value in small_state.items()}
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    torch.save(small_state, path)
    os.utime(path, ns=times)
    assert known_fingerprint(SMALL, str(path)) is None
    assert load_trunk(SMALL, str(path)).fingerprint != first


def test_fingerprint_of_downloaded_weights_is_known(server: Server) -> None:
    assert known_fingerprint(SMALL, "imagenet") is None
    first = load_trunk(SMALL, "imagenet").fingerprint
    assert known_fingerprint(SMALL, "imagenet") == first
    assert server.requests == 1


def test_fingerprint_that_cannot_be_kept_is_found_each_time(
    small_state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(small_state, tmp_path / "weights.pth")
    (tmp_path / "cache").touch()  # no folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_trunk(SMALL, str(tmp_path / "weights.pth"))(torch.rand(1, 1, 32, 32)).shape == (1, 1280)
    assert known_fingerprint(SMALL, str(tmp_path / "weights.pth")) is None


# Real weights


@pytest.mark.real
@pytest.mark.parametrize(("name", "file"), [("resnet18", "resnet18-standin.pth"), (SMALL, "mobilenet_v2-trunk.pth")])
def test_real_weights_tell_pictures_apart(name: str, file: str, shared: Path) -> None:
    from gel_lightning.data.datasets import picture_values
    from gel_lightning.data.images import read_picture

    backbone = load_trunk(name, str(shared / "weights" / file))
    folder = shared / "gel" / "dataset"
    paths = [*sorted((folder / "gel").iterdir())[:8], *sorted((folder / "not_gel").iterdir())[:8]]
    features = backbone(torch.stack([picture_values(read_picture(path), 128) for path in paths]))
    assert features.isfinite().all()
    directions = nn.functional.normalize(features - features.mean(dim=0))
    likeness = directions @ directions.T
    within = (likeness[:8, :8].sum() - 8 + likeness[8:, 8:].sum() - 8) / (2 * 8 * 7)
    assert within > likeness[:8, 8:].mean() + 0.1


@pytest.mark.parametrize("name", [*ONE_OF_EACH, *SCRATCH])
def test_the_smallest_picture_that_a_backbone_takes(name: str) -> None:
    least = ARCHITECTURES[name].min_size
    with torch.device("meta"):
        network = whole_network(name).eval()
        network(torch.empty(1, 3, least, least))
        if least > 1:
            with pytest.raises((RuntimeError, ValueError)):
                network(torch.empty(1, 3, least - 1, least - 1))
    check_image_size(name, least)
    with pytest.raises(GelError, match=f"--data.image_size {least} or more"):
        check_image_size(name, least - 1)


def test_the_auxiliary_head_of_inception_is_left_out_and_refused_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    whole = get_model("inception_v3", weights=None, aux_logits=True, init_weights=False).state_dict()
    torch.save(whole, path)
    load_trunk("inception_v3", str(path))
    torch.save(plain_network("resnet18").state_dict() | {"AuxLogits.fc.bias": torch.zeros(1)}, path)
    with pytest.raises(GelError, match=r"AuxLogits\.fc\.bias is not part of it"):
        load_trunk("resnet18", str(path))
