"""A worker's end, as its parts see it: that it has begun, and what has to be done before it is over."""

from __future__ import annotations

import mmap
from collections.abc import Callable


class Lifecycle:
    """Of this process; see WORKER."""

    def __init__(self) -> None:
        #: It takes no new work soon.
        self.is_draining = False
        # Shared by a master and the workers that it forks; what it makes next is for the workers after them.
        self._generation = mmap.mmap(-1, 1)
        #: Ends what has not finished in time; gives how many that were.
        self.cut: Callable[[], int] = lambda: 0

    def replace(self) -> None:
        """In the master: the workers so far make way for new ones."""
        self._generation[0] = 1
        self._generation = mmap.mmap(-1, 1)

    @property
    def is_leaving(self) -> bool:
        """The service ends with it; who asks whether it is ready is told so at once. Not where others take over."""
        return self.is_draining and not self._generation[0]


#: The worker that this process is.
WORKER = Lifecycle()
