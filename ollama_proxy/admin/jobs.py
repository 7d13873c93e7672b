"""Work on models of chosen boxes as jobs: they go on after the answer, and every worker of
the machine knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, get_args

from flask import Response, current_app
from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from ollama_proxy.admin.job_files import Job, JobKind, State
from ollama_proxy.admin.model_jobs import ModelJobs, StartedJob
from ollama_proxy.admin.modelfile import read_modelfile
from ollama_proxy.admin.records import change, has_records
from ollama_proxy.admin.routes import MAX_BODY, Section, current_gateway
from ollama_proxy.admin.schemas import MAX_CHARS, Answer, text, time
from ollama_proxy.errors import BadRequest, Conflict, NotFound, RecordsUnavailable
from ollama_proxy.gateway import current_exchange
from ollama_proxy.hub import Json
from ollama_proxy.texts import Translatable

SECTION = Section("jobs", "Work on models: pull, create, copy, load, unload, delete.", path="jobs")

#: Seconds for which an answer waits for work that may be over at once.
BRIEFLY_S = 0.7

#: Most boxes of one request.
MAX_BOXES = 100

#: The field that only one kind of work takes, and whether it needs it.
_FIELD_OF: Mapping[JobKind, tuple[str, bool]] = {
    "create": ("modelfile", True),
    "copy": ("new_name", True),
    "load": ("keep_alive", False),
}


class JobSchema(Answer):
    """Work on one model of one box."""

    id = fields.String()
    kind = fields.String(validate=OneOf(get_args(JobKind)))
    box = fields.String()
    model = fields.String()
    new_name = fields.String(allow_none=True, metadata={"description": "Of a copy; else null."})
    by = fields.String(metadata={"description": "The token that began it."})
    started_at = time()
    ended_at = time(allow_none=True)
    state = fields.String(
        validate=OneOf(get_args(State)),
        metadata={"description": "interrupted: its worker ended before it did."},
    )
    status = fields.String(metadata={"description": "What Ollama reports that it does."})
    error = fields.String(allow_none=True, metadata={"description": "Why it has failed."})
    completed = fields.Integer(metadata={"description": "Of all layers so far, in bytes."})
    total = fields.Integer(
        allow_none=True, metadata={"description": "Of all layers, in bytes; null: not known."}
    )
    bytes_per_s = fields.Float(allow_none=True)
    left_s = fields.Float(
        allow_none=True, metadata={"description": "At the present rate; null: not known."}
    )


class JobList(Answer):
    """Jobs."""

    jobs = fields.List(fields.Nested(JobSchema))


class JobRequest(Schema):
    """Work on a model, on each of these boxes."""

    kind = fields.String(required=True, validate=OneOf(get_args(JobKind)))
    model = fields.String(required=True, validate=Length(1, MAX_CHARS))
    boxes = fields.List(
        fields.String(validate=Length(1, MAX_CHARS)), required=True, validate=Length(1, MAX_BOXES)
    )
    modelfile = fields.String(
        validate=Length(max=MAX_BODY), metadata={"description": "For create, which needs it."}
    )
    new_name = text("For copy, which needs it.")
    keep_alive = fields.Raw(
        metadata={"description": "For load: how long the model stays, as Ollama takes it."}
    )


@SECTION.route("GET", answer=JobList)
def list_jobs() -> Json:
    """The jobs of all workers of this machine: those that run, then the newest that are over. Those
    that ended more than a day ago are forgotten."""
    return {"jobs": [describe_job(job) for job in current_jobs().store.list()]}


@SECTION.route("POST", body=JobRequest, answer=JobList, status=202)
def create_jobs(body: dict[str, Any]) -> Json:
    """Starts a job on each of the boxes, with the rights of the caller's token, which needs the
    scope manage. What is over at once has its result in the answer. A box that does the same work
    already goes on with that job."""
    kind: JobKind = body["kind"]
    new_name, sent = read_work(kind, body)
    jobs = start_jobs(kind, body["model"], body["boxes"], sent, new_name)
    return {"jobs": [describe_job(job) for job in jobs]}


@SECTION.route("DELETE", status=204)
def clear_jobs() -> Response:
    """Removes the jobs that are over from the list."""
    store = current_jobs().store
    for job in store.list():
        if not job.is_running:
            store.remove(job)
    return Response(status=204)


@SECTION.route("GET", "/<id>", answer=JobSchema)
def show_job(id: str) -> Json:
    """One job."""
    return describe_job(find_job(id))


@SECTION.route("DELETE", "/<id>", answer=JobSchema, status=202)
def cancel_job(id: str) -> Json:
    """Cancels a job, in whatever worker it runs; it ends within some seconds, and stays in the
    list. One that is over gets 409."""
    job = find_job(id)
    if not job.is_running:
        raise Conflict(Translatable("This job is over already."), param="id")
    current_jobs().store.ask_to_end(job)
    audit_job(job, "cancel")
    return describe_job(job)


def read_work(kind: JobKind, body: Mapping[str, Any]) -> tuple[str, dict[str, Json]]:
    """The new name of a copy, else ""; and what Ollama gets besides the name of the
    model. Raises BadRequest."""
    for each, (field, is_needed) in _FIELD_OF.items():
        if each != kind and field in body:
            raise BadRequest(f"{field}: only {each} takes it.", param=field)
        if each == kind and is_needed and not body.get(field):
            raise BadRequest(f"{field}: {kind} needs it.", param=field)
    if kind == "create":
        return "", read_modelfile(body["modelfile"])
    if kind == "load":
        return "", {"keep_alive": body["keep_alive"]} if "keep_alive" in body else {}
    return body.get("new_name", ""), {"keep_alive": 0} if kind == "unload" else {}


def start_jobs(
    kind: JobKind, model: str, boxes: Sequence[str], sent: Mapping[str, Json], new_name: str = ""
) -> list[Job]:
    """Starts a job on each of these boxes for whoever asks in this request, writes it into
    the audit, and waits a moment for what is over at once. `sent`: see `read_work`. A job
    that does the same work already is returned in place of a new one. Raises BadRequest,
    Forbidden, Overloaded."""
    exchange, jobs = current_exchange(), current_jobs()
    assert exchange.principal is not None, "nobody asks"
    check_boxes(boxes)
    started: list[StartedJob] = []
    try:
        for box in dict.fromkeys(boxes):
            job = Job(kind, box, model, exchange.principal.name, new_name=new_name)
            started.append(jobs.start(job, sent, exchange))
    finally:  # what has begun is written down, also if the rest is refused
        for each in started:
            if each.greenlet is not None:
                audit_job(each.job, kind)
    exchange.call.clock.join(
        [each.greenlet for each in started if each.greenlet is not None], BRIEFLY_S
    )
    return [each.job for each in started]


def check_boxes(boxes: Sequence[str]) -> None:
    """Raises BadRequest for a name that is not that of an Ollama server."""
    known = [node.name for node in current_gateway().fleet.ollama_nodes]
    for box in boxes:
        if box not in known:
            listed = ", ".join(known) or "none"
            text = Translatable(
                "There is no Ollama server '%(name)s'; available: %(names)s.",
                name=box[:60],
                names=listed,
            )
            raise BadRequest(text, param="boxes")


def audit_job(job: Job, action: str) -> None:
    """Writes down who has begun or cancelled a job, and from where."""
    if not has_records():
        return
    after = {"box": job.box} | ({"new_name": job.new_name} if job.new_name else {})
    with suppress(RecordsUnavailable):  # the work goes on: the access log has it
        change("add_audit", action=action, subject=f"models.{job.model[:200]}", after=after)


def find_job(job_id: str) -> Job:
    """One job; raises NotFound."""
    job = current_jobs().store.find(job_id)
    if job is None:
        raise NotFound(Translatable("There is no job %(id)s.", id=job_id[:100]), param="id")
    return job


def describe_job(job: Job) -> dict[str, Json]:
    """A job as answers have it."""
    return {
        **{
            name: getattr(job, name)
            for name in ("id", "kind", "box", "model", "by", "state", "status", "completed")
        },
        "new_name": job.new_name or None,
        "started_at": _format_time(job.started_s),
        "ended_at": None if job.ended_s is None else _format_time(job.ended_s),
        "error": job.error or None,
        "total": job.total or None,
        "bytes_per_s": job.rate,
        "left_s": job.left_s,
    }


def _format_time(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def current_jobs() -> ModelJobs:
    """The jobs of this application."""
    jobs: ModelJobs = current_app.extensions["ollama_proxy"]["jobs"]
    return jobs
