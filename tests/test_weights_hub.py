"""Downloads from a stand-in for the Hugging Face hub on the loopback device."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from test_convert_weights import error_of

from tools import convert_weights

PROJECT = Path(__file__).resolve().parents[1]
REVISION = "0123456789abcdef0123456789abcdef01234567"
pytest.importorskip("huggingface_hub", reason="the extra 'hub' is not installed")


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one repository with one file, as the hub's public interface does."""

    content, digest = b"", ""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        kind, content = "application/octet-stream", self.content
        if path.startswith("/api/models/timm/small"):
            kind = "application/json"
            lfs = {"sha256": self.digest, "size": len(content), "pointerSize": 130}
            file = {"rfilename": "model.safetensors", "size": len(content), "lfs": lfs}
            entry = {"id": "timm/small", "modelId": "timm/small", "sha": REVISION}
            content = json.dumps({**entry, "siblings": [file]}).encode()
        elif path != f"/timm/small/resolve/{REVISION}/model.safetensors":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{self.digest}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def download(endpoint, source, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "no_proxy": "*",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "tools/convert_weights.py", "pytorch", source]
    return subprocess.run(
        [*command, "--out", str(tmp_path / "x.params")],
        cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    """A whole ResNet-18 as the hub would hold it."""
    from safetensors.numpy import save
    from test_weights_pytorch import arrays_of

    arrays = {
        key: value.copy()
        for key, value in arrays_of("torchvision_resnet18").items()
        if value.ndim and not key.startswith("fc.")
    }
    return save(arrays)


def test_a_file_of_the_hub_becomes_start_parameters(hub, weights, tmp_path):
    Hub.content, Hub.digest = weights, hashlib.sha256(weights).hexdigest()
    ended = download(hub, "hub:timm/small", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "100 parameters of ResNet-18" in ended.stdout
    assert (tmp_path / "x.params").is_file()


def test_a_file_that_is_not_the_hubs_is_refused(hub, weights, tmp_path):
    Hub.content, Hub.digest = weights[:-1] + b"x", hashlib.sha256(weights).hexdigest()
    ended = download(hub, "hub:timm/small", tmp_path)
    assert ended.returncode == 2
    assert "came damaged: its SHA-256 is not the hub's" in ended.stderr
    assert not (tmp_path / "x.params").exists()


def test_without_a_network_the_address_is_named(tmp_path):
    ended = download("http://127.0.0.1:9", "hub:timm/small", tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: hub:timm/small: model.safetensors could not be")
    assert ended.stderr.count("\n") == 1
    assert "http://127.0.0.1:9/timm/small/resolve/main/model.safetensors" in ended.stderr
    assert not (tmp_path / "x.params").exists()


def test_a_name_that_is_no_repository(tmp_path, capsys):
    """A name without an owner is refused."""
    error = error_of(capsys, "pytorch", "hub:small", "--out", tmp_path / "x.params")
    assert "expected hub:OWNER/NAME" in error


def test_the_list_names_every_source_in_full(capsys):
    assert convert_weights.main(["list"]) == 0
    text = capsys.readouterr().out
    rows = yaml.safe_load(convert_weights.SOURCES.read_text())
    assert len(rows) >= 6
    keys = {"source", "convert", "fits", "mb", "licence", "state", "reported"}
    for row in rows:
        assert row.keys() == keys
        assert row["convert"] in ("pytorch", "gluoncv", "onnx", "release")
        assert all(str(value).strip() in text for value in row.values())
