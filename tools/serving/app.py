"""A web application around one or more networks: a page, and ``POST /v1/segment``.

One thread computes, one image at a time, with every core. The number of waiting requests is
bounded: a place is taken before a body is read, so memory is bounded too. A request without a place
gets 503 with ``Retry-After``. Starlette is enough: the body is the image itself, so there are
neither forms nor file names to parse.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tools.inference.predictor import Predictor
from tools.serving.uploads import Limits, decode_upload, read_body

FOLDER = Path(__file__).resolve().parent
POLICY = "default-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'"


class Service:
    """Networks by name, and the one thread that computes for all requests."""

    def __init__(self, networks: Mapping[str, Predictor], limits: Limits):
        self.networks, self.limits = dict(networks), limits
        self.waiting = 0
        self.lane = ThreadPoolExecutor(1, "network")

    def network(self, name: str | None) -> Predictor:
        """Return a network by name, the first by default; ``HTTPException`` if it is unknown."""
        name = name or next(iter(self.networks))
        if name not in self.networks:
            raise HTTPException(404, f"no model {name}; there are {', '.join(self.networks)}")
        return self.networks[name]

    async def segment(self, request: Request) -> Response:
        """Answer ``POST /v1/segment``."""
        query = request.query_params
        network = self.network(query.get("model"))
        kind = query.get("format", "png")
        if kind not in ("png", "json"):
            raise HTTPException(400, f"format={kind}: expected png or json")
        if self.waiting >= self.limits.waiting:
            raise HTTPException(503, "busy; try again in a moment", headers={"Retry-After": "1"})
        self.waiting += 1
        try:
            body = await read_body(request, self.limits)
            loop = asyncio.get_running_loop()
            work = (answer, network, body, self.limits, kind)
            content = await loop.run_in_executor(self.lane, *work)
        finally:
            self.waiting -= 1
        media = "image/png" if kind == "png" else "application/json"
        return Response(content, media_type=media)


def answer(network: Predictor, body: bytes, limits: Limits, kind: str) -> bytes:
    """Segment an upload: a palette PNG of train ids, or JSON with shares and that PNG."""
    labels = network.labels(decode_upload(body, limits))
    picture = Image.fromarray(labels)
    picture.putpalette(network.dataset.palette.tobytes())
    file = io.BytesIO()
    picture.save(file, format="PNG")
    if kind == "png":
        return file.getvalue()
    counts = np.bincount(labels.ravel(), minlength=len(network.classes))
    rows = [
        {"name": row.name, "color": list(row.color), "share": float(count / labels.size)}
        for row, count in zip(network.classes, counts)
    ]
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    height, width = labels.shape
    return json.dumps(
        {"width": width, "height": height, "classes": rows, "labels_png": encoded}
    ).encode()


def create_app(networks: Mapping[str, Predictor], limits: Limits | None = None) -> Starlette:
    """Build the application.

    Parameters
    ----------
    networks : mapping of str to Predictor
        The networks to offer, by name; the first is the default.
    limits : Limits, optional
        What a request may ask for.
    """
    service = Service(networks, limits or Limits())

    async def page(request: Request) -> Response:
        text = (FOLDER / "page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def models(request: Request) -> Response:
        return JSONResponse(
            [
                {"name": name, "classes": [row.name for row in network.classes]}
                for name, network in service.networks.items()
            ]
        )

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": service.waiting})

    async def openapi(request: Request) -> Response:
        return JSONResponse(_description(service.limits))

    async def refuse(request: Request, error: HTTPException) -> Response:
        # The rest of a refused body is not read; the connection ends instead.
        headers = {**(error.headers or {}), "Connection": "close"}
        return JSONResponse({"error": error.detail}, error.status_code, headers)

    @asynccontextmanager
    async def lifespan(app: Starlette):
        yield
        service.lane.shutdown(wait=True)

    routes = [
        Route("/", page),
        Route("/healthz", health),
        Route("/openapi.json", openapi),
        Route("/v1/models", models),
        Route("/v1/segment", service.segment, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: refuse}, lifespan=lifespan)


def _refusals(limits: Limits) -> dict[str, str]:
    """Say what each status of a refused upload means."""
    return {
        "400": "empty or broken off",
        "404": "no such model",
        "408": f"not whole within {limits.seconds:g} s",
        "413": f"more than {limits.megabytes} MB or {limits.megapixels} million pixels",
        "415": "no PNG and no JPEG",
        "422": "damaged",
        "503": "busy; Retry-After says when to come again",
    }


def _description(limits: Limits) -> dict[str, Any]:
    """Describe the interface as OpenAPI 3."""
    binary = {"schema": {"type": "string", "format": "binary"}}

    def parameter(name: str, schema: dict[str, Any], what: str) -> dict[str, Any]:
        return {"name": name, "in": "query", "schema": schema, "description": what}

    segment = {
        "summary": "Segment one image",
        "parameters": [
            parameter("model", {"type": "string"}, "name of a model (default: the first)"),
            parameter("format", {"enum": ["png", "json"], "default": "png"}, "of the answer"),
        ],
        "requestBody": {
            "required": True,
            "content": {"image/png": binary, "image/jpeg": binary},
        },
        "responses": {
            "200": {
                "description": "train ids as a palette PNG, or JSON with each class's share",
                "content": {"image/png": binary, "application/json": {}},
            },
            **{code: {"description": text} for code, text in _refusals(limits).items()},
        },
    }
    ok = {"responses": {"200": {"description": "JSON"}}}
    return {
        "openapi": "3.0.3",
        "info": {"title": "ResNet-DUC-HDC", "version": "1"},
        "paths": {
            "/v1/segment": {"post": segment},
            "/v1/models": {"get": {"summary": "Names and classes of the models", **ok}},
            "/healthz": {"get": {"summary": "Whether the service answers", **ok}},
        },
    }
