"""Slots that a worker keeps for a moment after a request, for the next one like it: asking the
coordinator for another one costs more than everything else that the gateway does for a short
request. As soon as anybody waits for the box, the coordinator calls them back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from ollama_proxy.clock import SYSTEM_CLOCK, Clock
from ollama_proxy.coordination.state import Outcome

#: How long a slot is kept, and for how long none of a box is kept after some were
#: called back, in seconds.
KEPT_S, CALLED_BACK_S = 0.05, 0.5


@dataclass(slots=True, eq=False)
class Slot:
    """A slot that was granted to this worker; requests use it one after the other."""

    #: Of the frame that asked for it.
    id: str
    box: str
    #: What a request must have in common with the first one to use it: flow,
    #: priority, boxes and models.
    kind: Hashable
    #: What the last request took, and the GPU time of all before it, in seconds.
    outcome: Outcome | None = None
    earlier_gpu_s: float = 0.0
    kept_since_s: float = 0.0

    def note(self, outcome: Outcome | None) -> None:
        """Records what a request took; None: it is not known, so nothing is
        learned from this slot."""
        if self.outcome is not None:
            self.earlier_gpu_s += self.outcome.gpu_s or 0.0
        self.outcome = outcome


@dataclass(slots=True, eq=False)
class KeptSlots:
    """The slots that no request of this worker uses now."""

    give_back: Callable[[Slot], None]
    clock: Clock = field(default=SYSTEM_CLOCK, kw_only=True)
    #: By the kind of requests that may use them.
    slots: dict[Hashable, list[Slot]] = field(default_factory=dict)
    #: When slots of a box were called back last.
    _called_back_s: dict[str, float] = field(default_factory=dict)

    def keep(self, slot: Slot) -> None:
        """Keeps a slot, or gives it back at once if others wait for its box."""
        now = self.clock.monotonic()
        if now - self._called_back_s.get(slot.box, -CALLED_BACK_S) < CALLED_BACK_S:
            self.give_back(slot)
        else:
            slot.kept_since_s = now
            self.slots.setdefault(slot.kind, []).append(slot)

    def take(self, kind: Hashable) -> Slot | None:
        """A kept slot for a request of this kind."""
        slots = self.slots.get(kind)
        return slots.pop() if slots else None

    def call_back(self, boxes: Iterable[str]) -> None:
        """Gives back the slots of these boxes, and keeps none for a while."""
        self._called_back_s |= dict.fromkeys(boxes, self.clock.monotonic())
        self._give_back_where(lambda slot: slot.box in boxes)

    def give_back_old(self) -> None:
        """Gives back the slots that nobody has used for a while."""
        oldest_s = self.clock.monotonic() - KEPT_S
        self._give_back_where(lambda slot: slot.kept_since_s <= oldest_s)

    def _give_back_where(self, is_over: Callable[[Slot], bool]) -> None:
        for kind, slots in list(self.slots.items()):
            self.slots[kind] = [slot for slot in slots if not is_over(slot)]
            if not self.slots[kind]:
                del self.slots[kind]
            for slot in slots:
                if is_over(slot):
                    self.give_back(slot)
