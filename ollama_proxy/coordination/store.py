"""Where slots and limits are kept: in this process, or in Redis for all machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import Limiter
from ollama_proxy.coordination.scheduler import Decision, Position, QueueLimits, Scheduler
from ollama_proxy.coordination.state import Grant, Outcome, Request


class SlotScheduler(Protocol):
    """What a Scheduler does, wherever its state is. Raises StateUnavailable."""

    limits: QueueLimits

    def set_box(
        self, name: str, now: float, *, slots: int | None, is_up: bool = ..., is_draining: bool = ...
    ) -> list[Decision]: ...

    def report_loaded(self, name: str, models: Iterable[str], now: float) -> list[Decision]: ...

    def acquire(self, request: Request, now: float) -> list[Decision]: ...

    def hold(self, request: Request, box_name: str, started_s: float, now: float) -> Grant: ...

    def release(self, request_id: str, now: float, outcome: Outcome | None = None) -> list[Decision]: ...

    def cancel(self, request_id: str, now: float) -> list[Decision]: ...

    def cancel_all(self, request_ids: Iterable[str], now: float) -> list[Decision]: ...

    def tick(self, now: float) -> list[Decision]: ...

    def locate(self, request_id: str) -> Position | None: ...


@dataclass(frozen=True, slots=True)
class Store:
    """Where slots and limits are kept: here, or in Redis for all machines."""

    scheduler: SlotScheduler
    limiter: Limiter
    #: The part of each box's slots that is granted here, at least one of each.
    share: float = 1.0
    is_shared: bool = False
    #: What is raised if it can't be reached, and who wants to know that.
    failures: tuple[type[Exception], ...] = ()
    note_lost: Callable[[Exception], None] = lambda error: None
    #: How many machines share it, and the statuses of the others.
    count_machines: Callable[[], int] = lambda: 1
    read_statuses: Callable[[], Sequence[Frame]] = lambda: ()


def make_share(share: float) -> Store:
    """A store of its own that grants a part of everything, at least one of each."""
    return Store(Scheduler(), Limiter(share=share), share)
