"""The demo's transcriptions: what it hears depends on the bytes of the recording
alone, and is no speech."""

from __future__ import annotations

import hashlib

import orjson

from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Json
from ollama_proxy.upstreams.demo.answers import PAUSE_S, Outcome, whole
from ollama_proxy.upstreams.demo.requests import Refusal, check_model
from ollama_proxy.upstreams.forms import Part, read_form

#: The length of every recording, in seconds: its format is not read.
SECONDS = 1.0

#: Words that it seems to hear.
_WORDS = (
    "amber birch cloud delta ember frost grove harbor island juniper kettle lantern meadow "
    "north orchard pebble"
)
WORDS = tuple(_WORDS.split())

SUBTITLES = {
    "srt": "1\n00:00:00,000 --> 00:00:01,000\n{}\n\n",
    "vtt": "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{}\n\n",
    "text": "{}\n",
}


def transcribe(content_type: str, body: bytes) -> Outcome:
    """The answer of `/v1/audio/transcriptions`; raises Refusal."""
    try:
        parts = {part.name: part for part in read_form(content_type, body)}
        fields = {name: part.text for name, part in parts.items() if part.filename is None}
    except GatewayError as error:
        raise Refusal(400, str(error)) from None
    check_model(fields.get("model", ""))
    recording = parts.get("file", Part("file", b""))
    if recording.filename is None or not recording.data:
        raise Refusal(400, "file is required")
    heard = words_for(recording.data)
    if fields.get("stream", "").lower() in ("true", "1"):
        return _stream(heard)
    form = fields.get("response_format") or "json"
    if form in SUBTITLES:
        return Outcome([SUBTITLES[form].format(heard).encode()], "text/plain; charset=utf-8")
    if form == "verbose_json":
        segment = {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": SECONDS,
            "text": heard,
            "tokens": [],
            "temperature": 0.0,
        }
        segment |= {"avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0}
        return whole(
            {"task": "transcribe", "language": "english", "duration": SECONDS, "text": heard}
            | {"segments": [segment]}
        )
    return whole({"text": heard})


def words_for(recording: bytes) -> str:
    """Five words for a recording, the same each time."""
    digest = hashlib.sha256(recording).digest()
    return "The demo hears: " + " ".join(WORDS[byte % len(WORDS)] for byte in digest[:5]) + "."


def _stream(heard: str) -> Outcome:
    """The events of a stream, word by word."""
    first, *others = heard.split(" ")
    words = [first, *(f" {word}" for word in others)]
    events: list[Json] = [{"type": "transcript.text.delta", "delta": word} for word in words]
    events.append({"type": "transcript.text.done", "text": heard})
    frames = [b"data: " + orjson.dumps(event) + b"\n\n" for event in events]
    return Outcome([*frames, b"data: [DONE]\n\n"], "text/event-stream", pause_s=PAUSE_S)
