"""Where slots and limits are kept: in this process, or in Redis for all machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.counters import MemoryStorage
from ollama_proxy.coordination.frames import Frame
from ollama_proxy.coordination.limits import Limiter
from ollama_proxy.coordination.scheduler import Scheduler

if TYPE_CHECKING:  # without Redis, its client is not needed
    from ollama_proxy.coordination.redis_scheduler import RedisScheduler

#: The second one raises StateUnavailable.
SlotScheduler: TypeAlias = "Scheduler | RedisScheduler"


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


def make_share(share: float, clock: Clock = SYSTEM_CLOCK) -> Store:
    """A store of its own that grants a part of everything, at least one of each."""
    return Store(Scheduler(), Limiter(MemoryStorage(clock), share=share, clock=clock), share)
