"""Published weights by their name, fetched by torchvision's own code from a server on localhost."""

import dataclasses
import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

from spinal_repro.config.compose import compose
from spinal_repro.config.schema import Component
from spinal_repro.errors import UserError
from spinal_repro.models.classifier import build_model

NAME = "shufflenet_v2_x0_5"


class Server:
    """Serves one file; counts how often, and may fail or lie."""

    def __init__(self, content: bytes) -> None:
        self.content, self.status, self.requests = content, 200, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(server.content)))
                self.end_headers()
                if server.status == 200:
                    self.wfile.write(server.content)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("localhost", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def published() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return shufflenet_v2_x0_5(weights=None).state_dict()


@pytest.fixture
def server(published, tmp_path, monkeypatch) -> Iterator[Server]:
    """The weights behind the name IMAGENET1K_V1, with the hash that torchvision checks."""
    buffer = io.BytesIO()
    torch.save(published, buffer)
    made = Server(buffer.getvalue())
    digest = hashlib.sha256(made.content).hexdigest()[:8]
    url = f"http://localhost:{made.http.server_port}/{NAME}-{digest}.pth"
    entry = ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    monkeypatch.setattr(entry, "_value_", dataclasses.replace(entry.value, url=url))
    kept = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "torch")
    yield made
    torch.hub.set_dir(kept)
    made.http.shutdown()


def build(weights: str = "IMAGENET1K_V1"):
    dataset = compose(["dataset=cifar10", "model=cifar_cnn"]).dataset
    model = Component(NAME, {"pretrained": weights}, kind="torchvision")
    return build_model(dataset, model, Component("fc", {}), image_size=64)


def test_named_weights_are_fetched_once_and_loaded(server, published):
    built = build()
    assert built.weights.source == "IMAGENET1K_V1"
    assert built.weights.matched == len(published) - 2
    assert built.weights.unexpected == ["fc.weight", "fc.bias"]
    loaded = built.backbone.net.state_dict()
    assert all(torch.equal(tensor, published[name]) for name, tensor in loaded.items())
    build()
    assert server.requests == 1  # the second time from torch's cache


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path):
    good, server.content = server.content, server.content[:-1] + b"x"
    with pytest.raises(UserError, match="could not be fetched"):
        build()
    server.content = good
    assert build().weights is not None


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_refuses(server, status):
    server.status = status
    with pytest.raises(UserError, match=rf"{status}.*give a file as model\.pretrained"):
        build()


def test_no_network(server):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match="without a network"):
        build()


def test_another_tag_names_the_nearest(server):
    with pytest.raises(UserError, match="did you mean 'IMAGENET1K_V1'"):
        build("IMAGENET1K_V2")
    assert server.requests == 0
