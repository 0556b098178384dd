"""ImageNet weights of timm, from a server of our own in the hub's place; test_backbones.py has the networks."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import refused
from safetensors.torch import save
from test_backbones import OF_TIMM

from gel_lightning.models.network import load_trunk

NAME = "lcnet_050"  # quick to write, read and send


class Hub(ThreadingHTTPServer):
    """Sends one file, whatever it is asked for, as the hub does."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.weights_sent: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        if self.path.endswith("model.safetensors"):  # the client asks for other things, too
            self.server.weights_sent.append(self.path)
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
def hub() -> Iterator[Hub]:
    torch.manual_seed(0)
    with Hub(save(timm.create_model(NAME).state_dict())) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def loaded(hub: Hub, home: Path) -> dict[str, Any]:
    """What a fresh process finds: the hub's client reads where the hub is once, when it is imported."""
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home / "hub"), "no_proxy": "*"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"timm/{NAME}"], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stderr == ""
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


SCRIPT = """
import json, sys
from gel_lightning.core.errors import GelError
from gel_lightning.models.network import load_trunk
from gel_lightning.models.weights import known_fingerprint
name = sys.argv[1]
found = {"before": known_fingerprint(name, "imagenet")}
try:
    found["loaded"] = load_trunk(name, "imagenet").fingerprint
    found["after"] = known_fingerprint(name, "imagenet")
except GelError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


def test_weights_are_fetched_once_and_kept_and_their_fingerprint_is_known(hub: Hub, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model(NAME).state_dict(), tmp_path / "own.pth")
    own = load_trunk(f"timm/{NAME}", str(tmp_path / "own.pth")).fingerprint
    assert loaded(hub, tmp_path) == {"before": None, "loaded": own, "after": own}
    assert len(hub.weights_sent) == 1
    hub.shutdown()
    hub.server_close()
    assert loaded(hub, tmp_path) == {"before": own, "loaded": own, "after": own}
    assert len(hub.weights_sent) == 1


def test_weights_that_cannot_be_had_are_an_error_with_ways_on(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    text = loaded(hub, tmp_path)["error"]
    assert text.startswith(f"the ImageNet weights of timm/{NAME} cannot be had")
    assert "--model.weights PATH" in text
    assert "--model.weights none" in text
    assert "\n" not in text


def test_weights_that_nobody_has_trained_are_refused() -> None:
    assert "--model.weights none" in refused(lambda: load_trunk("timm/lcnet_035", "imagenet"))


@pytest.mark.parametrize("name", OF_TIMM)
def test_each_has_a_random_network_whose_features_tell_pictures_apart(name: str) -> None:
    trunk = load_trunk(name, "none")
    features = trunk(torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert features.isfinite().all()
    assert len({tuple(row) for row in features.tolist()}) == 3
