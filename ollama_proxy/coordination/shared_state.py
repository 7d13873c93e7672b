"""The state that several machines share, as one document: the scheduler's, and what each
machine says of the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ollama_proxy.coordination.scheduler import QueueLimits, Scheduler
from ollama_proxy.coordination.state import Decision

#: Version of the document; one of another version is not read.
VERSION = 1

#: Slots, how many models fit (None: no bound), whether it is up, whether it is draining.
BoxView = tuple[int | None, int | None, bool, bool]


@dataclass(slots=True, eq=False)
class SharedState:
    """A scheduler, and by machine and name of a box what the machine says of it."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    machines: dict[str, dict[str, BoxView]] = field(default_factory=dict)
    #: Until then no slot is granted, because some may be held by machines that
    #: have not said so yet.
    settles_s: float | None = None

    @classmethod
    def load(cls, text: bytes | None, limits: QueueLimits) -> SharedState:
        """The state of a document; a new one if there is none that can be read."""
        try:
            document: dict[str, Any] = orjson.loads(text or b"{}")
        except orjson.JSONDecodeError:
            document = {}
        if document.get("version") != VERSION:
            return cls(Scheduler(limits))
        scheduler = Scheduler.load(document["scheduler"], limits)
        return cls(scheduler, document["machines"], document["settles_s"])

    def dump(self) -> bytes:
        """The document."""
        shared = {
            "machines": self.machines,
            "settles_s": self.settles_s,
            "scheduler": self.scheduler.dump(),
        }
        return orjson.dumps({"version": VERSION} | shared)

    def settle(self, now: float) -> list[Decision]:
        """Grants slots again, if it is time."""
        if self.settles_s is None or now < self.settles_s:
            return []
        self.settles_s = None
        names = {name for views in self.machines.values() for name in views}
        return [each for name in sorted(names) for each in self._set_box(name, now)]

    def set_views(self, machine: str, views: Mapping[str, BoxView], now: float) -> list[Decision]:
        """Takes in all that a machine says of boxes; others that it named before it
        does not know any more."""
        before = self.machines.get(machine, {})
        self.machines[machine] = dict(views)
        return [
            each for name in before | self.machines[machine] for each in self._set_box(name, now)
        ]

    def set_view(self, machine: str, name: str, view: BoxView, now: float) -> list[Decision]:
        """Takes in what a machine says of a box."""
        self.machines.setdefault(machine, {})[name] = view
        return self._set_box(name, now)

    def remove_machine(self, machine: str, now: float) -> list[Decision]:
        """Releases what a machine holds and waits for, and forgets what it said."""
        views = self.machines.pop(machine, {})
        decisions = self.scheduler.cancel_all(
            [name for name, _ in self.scheduler.list_requests(f"{machine}/")], now
        )
        return decisions + [each for name in views for each in self._set_box(name, now)]

    def _set_box(self, name: str, now: float) -> list[Decision]:
        """A box may be used if one machine can use it; of different bounds the smallest applies."""
        views = [views[name] for views in self.machines.values() if name in views]
        if not views:
            return self.scheduler.set_box(name, now, slots=0, is_up=False)
        is_up = any(up for _, _, up, _ in views)
        can_use = self.settles_s is None and any(
            up and not draining for _, _, up, draining in views
        )
        slots, max_loaded = (
            min((bound for bound in bounds if bound is not None), default=None)
            for bounds in list(zip(*views, strict=True))[:2]
        )
        return self.scheduler.set_box(
            name, now, slots=slots, max_loaded=max_loaded, is_up=is_up, is_draining=not can_use
        )
