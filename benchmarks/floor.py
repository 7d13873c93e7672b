"""The simplest server that the gateway could be: a Flask view under gunicorn's own gevent
worker, without an upstream, tokens or logs. What a request costs here is the unit of the
budgets, because machines differ.

    gunicorn -k gevent benchmarks.floor:app

The view reads a JSON body and answers with JSON of FLOOR_BYTES bytes.
"""

from __future__ import annotations

import os

import orjson
from flask import Flask, Response, request

EMPTY_BYTES = len(orjson.dumps({"text": ""}))
TEXT = "x" * (int(os.environ.get("FLOOR_BYTES", "0")) - EMPTY_BYTES)

app = Flask(__name__, static_folder=None)


@app.post("/")
def answer() -> Response:
    orjson.loads(request.get_data())
    return Response(orjson.dumps({"text": TEXT}), content_type="application/json")


@app.get("/")
def report_ready() -> str:
    return ""
