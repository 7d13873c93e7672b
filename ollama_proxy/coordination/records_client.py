"""What a worker asks the records, by way of the coordinator, and what it knows of their state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.errors import BadRequest, Conflict, GatewayError, NotFound, RecordsUnavailable
from ollama_proxy.hub import Json
from ollama_proxy.texts import text_from_json

log = logging.getLogger(__name__)

#: Seconds that the records have for a call; those that a call waits while this worker has no
#: coordinator, such as just after its start, and between two attempts.
QUERY_S, COORDINATOR_S, RETRY_S = 10.0, 5.0, 0.1

_ERRORS: dict[str, type[GatewayError]] = {
    each.slug: each for each in (BadRequest, Conflict, NotFound, RecordsUnavailable)
}


@dataclass(slots=True, eq=False)
class RecordsClient:
    """The records, for one worker."""

    #: Returns the coordinator's answer to a frame; None: there is none after so many seconds.
    _ask: Callable[[Frame, float], Frame | None]
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    #: The section `records` of the configuration.
    settings: Frame = field(default_factory=dict)
    #: Whether the database can be used; True until the coordinator says otherwise.
    is_available: bool = True
    #: Bytes that wait to be imported.
    spool_bytes: int = 0
    _problems: list[dict[str, str]] = field(default_factory=list)
    #: Gets the tokens and settings that are managed in the records, when they change.
    on_managed: Callable[[Frame], None] = lambda frame: None

    @property
    def is_enabled(self) -> bool:
        """Whether anything is recorded."""
        return bool(self.settings.get("url"))

    @property
    def problems(self) -> list[dict[str, str]]:
        """What an operator should mend, each with how."""
        return self._problems if self.is_enabled else []

    def query(self, call: str, **arguments: Json) -> Json:
        """The result of a call; CALLS in the package `records` has them. Waits for 15 seconds at
        most. Raises RecordsUnavailable, and what the call itself raises."""
        frame = {"op": "records", "call": call, "arguments": arguments}
        answer, until_s = self._ask(frame, QUERY_S) or {}, self.clock.monotonic() + COORDINATOR_S
        # A stand-in has no records. A call that was on its way to a coordinator that ended
        # may have had an effect.
        while (
            answer and not {"result", "error"} & answer.keys() and self.clock.monotonic() < until_s
        ):
            self.clock.sleep(RETRY_S)
            answer = self._ask(frame, QUERY_S) or {}
        if error := answer.get("error"):
            # Of its own class if that is a usual one.
            failure = _ERRORS.get(error["slug"], GatewayError)(
                text_from_json(error["message"]), param=error.get("param")
            )
            failure.slug, failure.status = error["slug"], error["status"]
            raise failure
        if "result" not in answer:
            raise RecordsUnavailable
        return answer["result"]

    def take(self, frame: Frame) -> None:
        """Takes in what the coordinator reports without being asked."""
        if frame["op"] == "managed":
            self.on_managed(frame)
            return
        was_available, self.is_available = self.is_available, frame["is_available"]
        self.spool_bytes = frame["spool_bytes"]
        self._problems = [
            {key: text_from_json(text) for key, text in each.items()} for each in frame["problems"]
        ]
        if was_available and not self.is_available:
            log.error("records_unavailable", extra={"fields": {"reason": frame["reason"]}})
        elif self.is_available and not was_available:
            log.warning("records_back")
