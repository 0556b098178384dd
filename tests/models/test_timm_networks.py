"""ImageNet weights of timm, from a server of our own in the hub's place; test_backbones.py has the networks."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from conftest import refused
from huggingface_hub import constants
from safetensors.torch import save
from test_backbones import OF_TIMM

from gel_lightning.models.network import load_trunk
from gel_lightning.models.weights import known_fingerprint

NAME = "lcnet_050"  # quick to write, read and send


class Hub(ThreadingHTTPServer):
    """Sends one file, whatever it is asked for, as the hub does."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.answer(self.server.body)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.send_header("ETag", f'"{hashlib.sha256(self.server.body).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    torch.manual_seed(0)
    with Hub(save(timm.create_model(NAME).state_dict())) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("no_proxy", "*")
        yield server
        server.shutdown()


def test_weights_are_fetched_once_and_kept_and_their_fingerprint_is_known(hub: Hub, tmp_path: Path) -> None:
    name = f"timm/{NAME}"
    assert known_fingerprint(name, "imagenet") is None
    first = load_trunk(name, "imagenet")
    assert [path.rpartition("/")[2] for path in hub.asked] == ["model.safetensors"]
    assert known_fingerprint(name, "imagenet") == first.fingerprint
    torch.manual_seed(0)
    torch.save(timm.create_model(NAME).state_dict(), tmp_path / "own.pth")
    own = load_trunk(name, str(tmp_path / "own.pth"))
    assert own.fingerprint == first.fingerprint
    pictures = torch.rand(2, 3, 64, 64)
    assert own(pictures).equal(first(pictures))
    hub.shutdown()
    hub.server_close()
    assert load_trunk(name, "imagenet").fingerprint == first.fingerprint
    assert len(hub.asked) == 1


def test_weights_that_cannot_be_had_are_an_error_with_ways_on(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    text = refused(lambda: load_trunk(f"timm/{NAME}", "imagenet"))
    assert text.startswith(f"the ImageNet weights of timm/{NAME} cannot be had")
    assert "--model.weights PATH" in text
    assert "--model.weights none" in text


def test_weights_that_nobody_has_trained_are_refused() -> None:
    assert "--model.weights none" in refused(lambda: load_trunk("timm/lcnet_035", "imagenet"))


@pytest.mark.parametrize("name", OF_TIMM)
def test_each_has_a_random_network_whose_features_tell_pictures_apart(name: str) -> None:
    trunk = load_trunk(name, "none")
    features = trunk(torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert features.isfinite().all()
    assert len({tuple(row) for row in features.tolist()}) == 3
