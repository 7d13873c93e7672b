"""Tool calls that wait for their results. A result identifies its call by id, by the
tool's name, or not at all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ollama_proxy.hub import ToolCall


@dataclass(slots=True, eq=False)
class _Pending:
    call_id: str
    is_waiting: bool = True


@dataclass(slots=True, eq=False)
class PendingCalls:
    """Finds each call once. Adding and taking cost the same however many calls wait: a
    client may send thousands.

    The three queues share their entries. A taken entry stays in the other queues
    until it is at the front.
    """

    #: How many calls wait.
    waiting: int = 0
    _in_order: deque[_Pending] = field(default_factory=deque)
    _by_id: dict[str, deque[_Pending]] = field(default_factory=dict)
    _by_name: dict[str, deque[_Pending]] = field(default_factory=dict)

    def add(self, call: ToolCall, call_id: str) -> None:
        """Adds a call; `call_id` is the id to send with its result, `call.id` the one
        that the client knows."""
        pending = _Pending(call_id)
        self.waiting += 1
        self._in_order.append(pending)
        self._by_name.setdefault(call.name, deque()).append(pending)
        if call.id:
            self._by_id.setdefault(call.id, deque()).append(pending)

    def take_by_id(self, call_id: str | None) -> str | None:
        """The id to send for the first waiting call that the client knows by this id;
        None if there is none."""
        return self._take(self._by_id.get(call_id)) if call_id else None

    def take_by_name(self, name: str | None) -> str | None:
        """The same for the first waiting call of a tool."""
        return self._take(self._by_name.get(name)) if name else None

    def take_next(self) -> str | None:
        """The same for the first waiting call."""
        return self._take(self._in_order)

    def _take(self, queue: deque[_Pending] | None) -> str | None:
        while queue:
            pending = queue.popleft()
            if pending.is_waiting:
                pending.is_waiting = False
                self.waiting -= 1
                return pending.call_id
        return None
