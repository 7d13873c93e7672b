"""Checks of the servers that run the models, asked directly from this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from ollama_proxy.cli.doctor.door import FAILURES, Door
from ollama_proxy.cli.doctor.finding import Finding, Level
from ollama_proxy.cli.doctor.installation import check_clock
from ollama_proxy.cli.doctor.processes import find_listener, read_environment
from ollama_proxy.cli.exposure import check_upstreams as check_exposure
from ollama_proxy.cli.exposure import is_here
from ollama_proxy.settings import Settings, UpstreamSettings, effective_upstreams
from ollama_proxy.upstreams import UPGRADE, list_faults

#: Longest wait for an upstream, in seconds.
ANSWER_S = 3.0

#: Contexts below this are a default that cuts the prompts of coding assistants and of
#: long chats, in tokens.
SMALL_CONTEXT = 8192

#: How many requests Ollama answers at a time unless its environment says it.
DEFAULT_PARALLEL = 1


def check_upstreams(settings: Settings) -> Iterator[Finding]:
    """Checks all upstreams, at the same time."""
    upstreams = [each for each in effective_upstreams(settings) if each.protocol != "demo"]
    with ThreadPoolExecutor(max(1, len(upstreams))) as pool:
        for found in pool.map(lambda each: list(check_upstream(each)), upstreams):
            yield from found
    for exposed in check_exposure(settings):
        if exposed.is_open:
            # The last sentence, if there are several, is the advice.
            what, _, mend = exposed.text.removesuffix(".").rpartition(". ")
            yield Finding(Level.WARNING, "upstreams", what or exposed.text, mend if what else "")


def check_upstream(upstream: UpstreamSettings) -> Iterator[Finding]:
    """Checks that one server answers, and if it is Ollama, its version,
    contexts and number of slots."""
    part, door = f"upstream {upstream.name}", Door(upstream.base_url)
    try:
        answer = door.ask(
            "/api/version" if upstream.protocol == "ollama" else "", {}, timeout_s=ANSWER_S
        )
        yield from check_clock(part, answer.headers.get("date"))
        if upstream.protocol != "ollama":
            return
        version = answer.document.get("version")
        if not isinstance(version, str):
            raise HTTPException(f"it is not Ollama: status {answer.status}")
        for fault in list_faults(version):
            yield Finding(Level.WARNING, part, fault, UPGRADE)
        yield from check_contexts(part, door.ask("/api/ps", {}, timeout_s=ANSWER_S).document)
        yield from check_slots(part, upstream, door)
    except FAILURES as error:
        mend = "start it, or correct its base_url; a firewall may be in between"
        what = f"no answer from {upstream.base_url} ({error or type(error).__name__})"
        yield Finding(Level.FAULT, part, what, mend)


def check_contexts(part: str, loaded: Mapping[str, Any]) -> Iterator[Finding]:
    """Checks the contexts of the loaded models; `loaded`: the answer of /api/ps."""
    for row in loaded.get("models") or ():
        length = row.get("context_length")
        if isinstance(length, int) and 0 < length < SMALL_CONTEXT:
            what = (
                f"{row.get('name')} is loaded with a context of {length} tokens, so "
                "longer prompts are cut"
            )
            mend = "set models.<name>.options.num_ctx, or OLLAMA_CONTEXT_LENGTH on the server"
            yield Finding(Level.WARNING, part, what, mend)


def check_slots(part: str, upstream: UpstreamSettings, door: Door) -> Iterator[Finding]:
    """Compares `concurrency` with the number of requests that the server answers at a time: by its
    environment if it runs here, else by two short answers of a loaded model."""
    slots = upstream.concurrency
    if not slots:
        return
    mend = f"OLLAMA_NUM_PARALLEL={slots} in Ollama's environment, or a concurrency that fits"
    if is_here(upstream.base_url) and (pid := find_listener(door.port)):
        environ = read_environment(pid)
        if environ is not None:
            parallel = environ.get("OLLAMA_NUM_PARALLEL", "")
            number = int(parallel) if parallel.isdigit() and int(parallel) else DEFAULT_PARALLEL
            if number != slots:
                level = Level.WARNING if number < slots else Level.NOTE
                what = (
                    f"concurrency is {slots}, but Ollama answers {number} at a time "
                    "(OLLAMA_NUM_PARALLEL)"
                )
                yield Finding(level, part, what, mend)
            return
    if slots > 1 and (model := _find_loaded(door)) and takes_turns(door, model):
        what = f"concurrency is {slots}, but Ollama answers one request after the other"
        yield Finding(Level.WARNING, part, what, mend)


def _find_loaded(door: Door) -> str:
    """The first loaded model that generates text; "" without one."""
    rows = door.ask("/api/ps", {}, timeout_s=ANSWER_S).document.get("models") or ()
    names = [row.get("name") for row in rows if "embed" not in str(row.get("name"))]
    return str(names[0]) if names else ""


def takes_turns(door: Door, model: str) -> bool:
    """Whether of two short requests at the same time one waits for the other. Raises
    OSError, HTTPException."""
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: _generate(door, model), range(2)))
    waited = [each["total"] - each["load"] - each["prompt_eval"] - each["eval"] for each in answers]
    return any(
        wait > 0.7 * other["eval"] > 0
        for wait, other in zip(waited, reversed(answers), strict=True)
    )


def _generate(door: Door, model: str) -> dict[str, float]:
    """What sixteen tokens took, in seconds, by Ollama's own clock and by ours."""
    began_s = time.monotonic()
    body = {
        "model": model,
        "prompt": "Count to ten.",
        "stream": False,
        "options": {"num_predict": 16},
    }
    answer = door.post("/api/generate", body, timeout_s=30.0)
    took = {
        name: (answer.get(f"{name}_duration") or 0) / 1e9
        for name in ("load", "prompt_eval", "eval")
    }
    return took | {"total": time.monotonic() - began_s}
