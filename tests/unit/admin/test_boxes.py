"""Models of boxes through the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.rig.boxes import Box, row, running
from tests.rig.fault_upstream import Json
from tests.rig.in_process import TOKEN, in_process
from tests.rig.openapi import Document
from tests.unit.admin.conftest import Api


@contextmanager
def open_api(document: Document, *upstreams: dict[str, Any]) -> Iterator[Api]:
    with in_process(upstreams=list(upstreams), auth={"generate_tokens": [TOKEN]}) as app:
        yield Api(app, document)


def test_every_model_has_its_copies(document: Document) -> None:
    first, second = Box("box1", ["m", "n"], loaded=["m"]), Box("box2", ["M"])
    second.script("/api/tags", *[[Json({"models": [row("M") | {"digest": "9c" * 32}]})]] * 9)
    with running(first, second), open_api(document, first.declared, second.declared) as api:
        answer = api.ask("GET", "boxes/models")
    assert [
        (box["name"], box["is_fresh"], box["is_known"], box["reason"]) for box in answer["boxes"]
    ] == [
        ("box1", True, True, None),
        ("box2", True, True, None),
    ]
    models = {model["name"]: model for model in answer["models"]}
    assert {name: (model["differs"], len(model["copies"])) for name, model in models.items()} == {
        "m:latest": (True, 2),
        "n:latest": (False, 1),
    }
    loaded, other = models["m:latest"]["copies"]
    assert (loaded["box"], loaded["name"], loaded["size"], loaded["digest"]) == (
        "box1",
        "m:latest",
        1,
        "5b" * 32,
    )
    assert loaded["loaded"] == {
        "size": 1,
        "size_vram": 0,
        "context_length": None,
        "until": "2026-01-01T00:00:00+00:00",
    }
    assert (other["box"], other["name"], other["loaded"], other["details"]["family"]) == (
        "box2",
        "M:latest",
        None,
        "llama",
    )
    assert answer["others"] == []


def test_what_a_box_says_in_other_types_is_unknown(document: Document) -> None:
    odd = {"name": "m", "model": "m", "size": "big", "modified_at": 7, "details": []}
    box = Box("box1", [])
    box.script("/api/tags", *[[Json({"models": [odd]})]] * 9)
    with running(box), open_api(document, box.declared) as api:
        [model] = api.ask("GET", "boxes/models")["models"]
    assert model["copies"] == [
        {
            "box": "box1",
            "name": "m",
            "size": None,
            "digest": "",
            "modified_at": None,
            "details": {},
            "loaded": None,
        }
    ]


def test_models_of_other_upstreams_are_names(document: Document) -> None:
    with Box("box1", ["m"]) as box:
        with open_api(document, box.declared, {"name": "demo", "kind": "demo"}) as api:
            answer = api.ask("GET", "boxes/models")
    assert [box["name"] for box in answer["boxes"]] == ["box1"]
    [other] = answer["others"]
    assert other["name"] == "demo" and other["models"]
