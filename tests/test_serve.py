"""tools/serve.py as a process of its own: answers, refusals, many clients, its page, its end."""

import http.client
import io
import json
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from browser import PROGRAM, Browser
from PIL import Image
from tiny_run import make_run, noise

from tools.inference.predictor import load
from train.machine import PROJECT

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
TYPE = {"Content-Type": "image/png"}


class Server:
    """A running command, and requests to it."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, PROJECT / "tools" / "serve.py", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline())[1])

    def ask(self, path="/v1/segment", body=None, headers=TYPE, method="POST"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            # A server that refuses a body does not read its end: mostly, the answer is there.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read(), dict(reply.getheaders())
        finally:
            connection.close()

    def peak(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("serve") / "first").path


@pytest.fixture(scope="module")
def server(run):
    other = make_run(run.parent / "second", seed=1).path
    limits = ("--max-megapixels", 1, "--max-megabytes", 2, "--max-seconds", 2)
    server = Server("--model", run, other, *limits)
    yield server
    server.process.kill()
    server.process.wait()


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def test_labels_and_shares(server, run):
    """The answer is a PNG of labels, or JSON with the share of each class, by the chosen model."""
    image = noise(37, 53)
    expected = load(run).labels(image)
    status, body, headers = server.ask(body=encoded(image))
    assert (status, headers["content-type"]) == (200, "image/png")
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(body))), expected)
    status, body, _ = server.ask("/v1/segment?format=json&model=second", encoded(image))
    found = json.loads(body)
    assert (status, found["width"], found["height"]) == (200, 53, 37)
    other = load(run.parent / "second").labels(image)
    shares = np.bincount(other.ravel(), minlength=11) / other.size
    np.testing.assert_allclose([row["share"] for row in found["classes"]], shares)
    assert json.loads(server.ask("/healthz", method="GET")[1])["status"] == "ok"
    description = json.loads(server.ask("/openapi.json", method="GET")[1])
    assert "/v1/segment" in description["paths"]


def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(width, height, data, depth=8, colour=2):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def endless():
    while True:
        yield b"x" * 65536


def slow():
    for _ in range(60):
        yield b"x"
        time.sleep(0.2)


def hostile():
    """Yield thirty bodies, each with its headers and the expected status."""
    whole, photo = encoded(noise(40, 56)), encoded(noise(40, 56), "JPEG")
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 255
    jpeg = {"Content-Type": "image/jpeg"}
    form = b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../etc/passwd"\r\n\r\n'
    bomb = zlib.compress(bytes(3 * 900 * 900))
    yield from ((whole[: len(whole) * part // 5], TYPE, 422) for part in range(2, 5))
    yield from ((photo[: len(photo) * part // 5], jpeg, 422) for part in range(3, 5))
    yield whole[:8], TYPE, 415
    yield photo[:2], jpeg, 415
    yield bytes(broken), TYPE, 422
    yield b"", TYPE, 400
    yield b"\0" * 1000, TYPE, 415
    yield b"GIF89a" + bytes(100), TYPE, 415
    yield encoded(noise(40, 56), "GIF"), TYPE, 415
    yield encoded(noise(40, 56), "BMP"), TYPE, 415
    yield encoded(noise(40, 56), "TIFF"), TYPE, 415
    yield b"<svg xmlns='http://www.w3.org/2000/svg'/>", TYPE, 415
    yield b"%PDF-1.7", TYPE, 415
    yield b"PK\x03\x04" + bytes(200), TYPE, 415
    yield png(60000, 60000, zlib.compress(b"")), TYPE, 413  # Pillow does not open so large ones
    yield png(2**31 - 1, 2**31 - 1, b""), TYPE, 413
    yield png(0, 0, b""), TYPE, 415
    yield png(1001, 1000, bomb), TYPE, 413
    yield png(900, 900, bomb[:50]), TYPE, 422
    yield png(900, 900, b"no zlib"), TYPE, 422
    yield whole, {"Content-Type": "text/html"}, 415
    yield whole, {"Content-Type": "application/json"}, 415
    yield whole, {}, 415
    yield form + whole + b"\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 415
    yield bytes(3 << 20), TYPE, 413
    yield endless(), TYPE, 413
    yield slow(), TYPE, 408


def test_hostile_uploads_get_a_sentence(server):
    cases = list(hostile())
    assert len(cases) == 30
    before = server.peak()
    for number, (body, headers, expected) in enumerate(cases):
        try:
            status, answer, _ = server.ask(body=body, headers=headers)
        except (ConnectionError, http.client.IncompleteRead):  # reset because of the unread rest
            assert not isinstance(body, bytes) or len(body) > 2 << 20, number
            continue
        assert status == expected, (number, answer)
        assert len(json.loads(answer)["error"]) > 10, number
    assert server.peak() - before < 100
    assert server.ask(body=encoded(noise(16, 16)))[0] == 200
    assert server.ask("/v1/segment?model=../../etc/passwd", encoded(noise(16, 16)))[0] == 404
    assert server.ask("/../etc/passwd", method="GET")[0] == 404


def test_fifty_clients_get_their_own_answers(server, run):
    images = [noise(20 + number, 90 - number, seed=number) for number in range(50)]
    network = load(run)
    expected = [network.labels(image) for image in images]
    before, refused = server.peak(), []

    def client(image):
        while True:
            status, body, headers = server.ask(body=encoded(image))
            if status != 503:
                return status, body
            refused.append(headers["retry-after"])
            time.sleep(0.05)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(client, images))
    for (status, body), labels in zip(answers, expected):
        assert status == 200
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(body))), labels)
    assert set(refused) <= {"1"}
    assert server.peak() - before < 150


@pytest.mark.slow
def test_sigterm_finishes_what_runs(run):
    server = Server("--model", run)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.ask, body=encoded(noise(1500, 2000)))
        while not json.loads(server.ask("/healthz", method="GET")[1])["waiting"]:
            assert not answer.done()
        server.process.send_signal(signal.SIGTERM)
        assert answer.result()[0] == 200
    assert server.process.wait(60) in (0, -signal.SIGTERM)


@pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed (apt-get install chromium)")
def test_the_page_in_a_browser(server, tmp_path):
    """Two models segment an upload side by side; the pointer shows the class below it in both."""
    picture = tmp_path / "street.png"
    Image.fromarray(noise(60, 80)).save(picture)
    with Browser() as browser:
        browser.resize(390, 844, mobile=True)
        browser.open(f"http://127.0.0.1:{server.port}/")

        def wait(script):
            until = time.time() + 60
            while not browser.run(script):
                assert time.time() < until, browser.run("document.body.innerText")
                time.sleep(0.1)

        wait("document.querySelectorAll('#first option').length === 2")
        browser.run("document.getElementById('second').value = 'second'")
        found = browser.call("Runtime.evaluate", expression="document.getElementById('file')")
        handle = found["result"]["objectId"]
        browser.call("DOM.setFileInputFiles", files=[str(picture)], objectId=handle)
        wait("document.querySelectorAll('canvas').length === 2")
        wait("document.getElementById('message').textContent.includes('point at')")
        assert browser.run("document.querySelectorAll('tr').length") == 22
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        for number, name in enumerate(("first", "second")):
            assert browser.run(f"document.querySelectorAll('strong')[{number}].textContent") == name
        top = browser.run("document.querySelector('td').textContent")
        browser.run(
            "{const c = document.querySelector('canvas'), b = c.getBoundingClientRect();"
            "c.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width / 2,"
            " clientY: b.top + b.height / 2}))}"
        )
        read = browser.run("[...document.querySelectorAll('.under')].map(e => e.textContent)")
        assert len(read) == 2 and all(read) and top
        browser.screenshot(tmp_path / "phone.png")
