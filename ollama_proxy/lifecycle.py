"""A worker's end, as its parts see it: that it has begun, and what has to be done before it is over."""

from __future__ import annotations

from collections.abc import Callable


class Lifecycle:
    """Of this process; see WORKER."""

    def __init__(self) -> None:
        #: It takes no new work soon; who asks whether it is ready is told so at once.
        self.is_draining = False
        #: Ends what has not finished in time; gives how many that were.
        self.cut: Callable[[], int] = lambda: 0


#: The worker that this process is.
WORKER = Lifecycle()
