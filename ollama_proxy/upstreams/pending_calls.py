"""Tool calls that wait for their results. A result identifies its call by id, by the tool's name, or not at all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ollama_proxy.hub import ToolCall


@dataclass(slots=True, eq=False)
class _Pending:
    call_id: str
    is_waiting: bool = True


class PendingCalls:
    """Finds each call once. Adding and taking cost the same however many calls wait: a client may send thousands.

    The three queues share their entries. A taken entry stays in the other queues until it is at the front.
    """

    def __init__(self) -> None:
        self._in_order: deque[_Pending] = deque()
        self._by_id: dict[str, deque[_Pending]] = {}
        self._by_name: dict[str, deque[_Pending]] = {}

    def add(self, call: ToolCall, call_id: str) -> None:
        """Adds a call; `call_id` is the id to send with its result, `call.id` the one that the client knows."""
        pending = _Pending(call_id)
        self._in_order.append(pending)
        self._by_name.setdefault(call.name, deque()).append(pending)
        if call.id:
            self._by_id.setdefault(call.id, deque()).append(pending)

    def take_by_id(self, call_id: str | None) -> str | None:
        """The id to send for the first waiting call that the client knows by this id; None if there is none."""
        return _take(self._by_id.get(call_id)) if call_id else None

    def take_by_name(self, name: str | None) -> str | None:
        """The same for the first waiting call of a tool."""
        return _take(self._by_name.get(name)) if name else None

    def take_next(self) -> str | None:
        """The same for the first waiting call."""
        return _take(self._in_order)

    def is_empty(self) -> bool:
        """Whether no call waits."""
        return not _skip_taken(self._in_order)


def _take(queue: deque[_Pending] | None) -> str | None:
    if queue is None or not _skip_taken(queue):
        return None
    pending = queue.popleft()
    pending.is_waiting = False
    return pending.call_id


def _skip_taken(queue: deque[_Pending]) -> deque[_Pending]:
    """The queue without the taken entries at its front."""
    while queue and not queue[0].is_waiting:
        queue.popleft()
    return queue
