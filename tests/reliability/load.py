"""Requests one after the other in several loops, while a row does something to the gateway."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from tests.reliability.rig import PROBE_TOKEN, TOKEN
from tests.rig.deadline import wait_until
from tests.rig.http_client import bearer, request
from tests.rig.probe import MODEL as STEADY

#: How a request fared: its status, or the name of what came instead of an answer.
Outcome = int | str


def ask(url: str, path: str = "/api/version", token: str = TOKEN, timeout: float = 20) -> Outcome:
    """One small request on a connection of its own."""
    try:
        answer = request(url, path=path, headers=bearer(token), timeout=timeout)
    except OSError as error:
        return type(error).__name__
    return answer.status if answer.complete else "cut"


class KeptClient:
    """A client that chats on one connection for as long as the other side keeps it,
    and then opens another."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(self) -> Outcome:
        """A small chat with the probe's own model."""
        body = {"model": STEADY, "messages": [{"role": "user", "content": "hi"}], "stream": False}
        try:
            self._connection.request("POST", "/api/chat", json.dumps(body), bearer(PROBE_TOKEN))
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return type(error).__name__
        return response.status

    def close(self) -> None:
        """Leaves."""
        self._connection.close()


class Load:
    """``with Load(ask, ask) as load``: a loop for each question, from the first line of
    the block to its last."""

    def __init__(self, *questions: Callable[[], Outcome], pause_s: float = 0.0) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.slowest_s = 0.0
        self._over = threading.Event()
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._loop, args=(question,)) for question in questions
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        """Requests that are over."""
        with self._lock:
            return self.outcomes.total()

    def wait_for(self, count: int, seconds: float) -> None:
        """Until so many requests are over."""
        wait_until(
            lambda: self.total >= count,
            seconds,
            lambda: f"only {self.total} of {count}: {self.outcomes}",
        )

    def _loop(self, question: Callable[[], Outcome]) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            outcome = question()
            with self._lock:
                self.outcomes[outcome] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self._over.wait(self._pause_s)
