"""The state of a worker that is about to end, and what has to be done before it does."""

from __future__ import annotations

import mmap
from collections.abc import Callable


class Lifecycle:
    """The lifecycle of one worker."""

    def __init__(self) -> None:
        #: The worker will soon take no new requests.
        self.is_draining = False
        # Shared by a master and the workers that it forks; `replace` makes another
        # one for the next workers.
        self._generation = mmap.mmap(-1, 1)
        #: Connections that were refused because there were too many.
        self.refused_connections = 0
        #: Ends the requests that have not finished in time; returns their number.
        self.cut: Callable[[], int] = lambda: 0
        #: Ends the requests that wait for a slot.
        self.refuse_waiting: Callable[[], None] = lambda: None

    def replace(self) -> None:
        """In the master: the current workers are replaced by new ones."""
        self._generation[0] = 1
        self._generation = mmap.mmap(-1, 1)

    @property
    def is_leaving(self) -> bool:
        """Whether the service ends with this worker, so that it is not ready any more; not
        if others replace it."""
        return self.is_draining and not self._generation[0]
