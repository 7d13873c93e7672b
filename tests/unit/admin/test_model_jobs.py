"""Progress and answers of work on models."""

from __future__ import annotations

import pytest
from flask import Response

from ollama_proxy.admin.job_files import Job
from ollama_proxy.admin.model_jobs import (
    MAX_ERROR_CHARS,
    Progress,
    note_failure,
    rate_of,
    read_answer,
)
from ollama_proxy.dialects.native.blueprint import NATIVE
from ollama_proxy.errors import GatewayError, UpstreamError, UpstreamRefused, UpstreamTimeout
from ollama_proxy.gateway import Exchange
from ollama_proxy.hub import Json
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams import Call


def test_the_layers_of_a_pull_are_summed_up() -> None:
    job = Job("pull", "box1", "m", "boss")
    progress = Progress(job)
    progress.add({"status": "pulling manifest"})
    assert (job.status, job.completed, job.total) == ("pulling manifest", 0, 0)
    progress.add({"status": "pulling aa", "digest": "sha256:aa", "total": 100})
    progress.add({"status": "pulling aa", "digest": "sha256:aa", "total": 100, "completed": 60})
    progress.add({"status": "pulling bb", "digest": "sha256:bb", "total": 10, "completed": 10})
    assert (job.status, job.completed, job.total) == ("pulling bb", 70, 110)
    progress.add({"status": "pulling aa", "digest": "sha256:aa", "completed": 100})
    progress.add({"status": "box1: success"})
    assert (job.status, job.completed, job.total) == ("success", 110, 110)


@pytest.mark.parametrize(
    "line", [{"digest": 3, "total": 9}, {"digest": "a", "total": "x"}, {"digest": "a", "total": -5}]
)
def test_lines_of_another_shape_count_nothing(line: dict[str, Json]) -> None:
    job = Job("pull", "box1", "m", "boss")
    Progress(job).add(line)
    assert (job.completed, job.total) == (0, 0)


def test_the_rate_is_that_of_the_time_that_was_seen() -> None:
    assert rate_of([(0.0, 100)]) is None
    assert rate_of([(0.0, 100), (5.0, 100)]) is None
    assert rate_of([(0.0, 100), (1.0, 150), (5.0, 600)]) == 100.0


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (UpstreamTimeout(), UpstreamTimeout.text),
        (UpstreamRefused(500, "x" * 2000), "x" * MAX_ERROR_CHARS),
    ],
)
def test_a_failed_job_has_the_text_of_its_error(error: GatewayError, kept: str) -> None:
    job = Job("pull", "box1", "m", "boss")
    exchange = Exchange("id", "POST", "/api/pull", "1.2.3.4", NATIVE, Call(Timeouts()))
    note_failure(job, exchange, error)
    assert (job.state, job.error, type(job.error)) == ("failed", kept, type(kept))


def test_an_answer_is_a_document_or_an_error() -> None:
    assert read_answer(Response('{"done": true}')) == {"done": True}
    with pytest.raises(UpstreamRefused, match="out of memory") as refused:
        read_answer(Response('{"error": "out of memory"}', status=500))
    assert refused.value.status == 500
    for text in ("", "[]", "{"):
        with pytest.raises(UpstreamError):
            read_answer(Response(text))
