"""Requests of every kind that say their number, as clients send them one after the other
while something happens."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.rig.calls import EMBEDDINGS, FACES
from tests.rig.http_client import bearer, open_stream

#: Seconds between two requests of a loop: how many there are is not the subject, and a gateway that
#: is away would refuse some ten thousand connections a second.
PAUSE_S = 0.05

KINDS = [*FACES.values(), *EMBEDDINGS.values()]


class NumberedClient:
    """Sends numbered requests of every kind, each with its number in the prompt and as its id."""

    def __init__(self, *urls: str, token: str, leaving: int = 0) -> None:
        """The loops take the addresses in turn. `leaving`: one request in so many is given up after
        the first bytes of its answer."""
        self._urls, self._token, self._leaving = urls, token, leaving
        self._numbers = itertools.count(1)
        self._over = threading.Event()
        #: Numbers that were sent; those that got a whole answer; and the others.
        self.sent, self.answered, self.failed = set[int](), set[int](), set[int]()

    def run(self, seed: int) -> None:
        """Asks until `stop`."""
        chance, url = random.Random(seed), self._urls[seed % len(self._urls)]
        while not self._over.is_set():
            number = next(self._numbers)
            self.sent.add(number)
            try:
                is_whole = self._ask(
                    url, number, leaves=self._leaving > 0 and chance.randrange(self._leaving) == 0
                )
            except OSError:
                is_whole = False
            (self.answered if is_whole else self.failed).add(number)
            self._over.wait(PAUSE_S)

    def stop(self) -> None:
        """Ends all loops after their request."""
        self._over.set()

    def _ask(self, url: str, number: int, *, leaves: bool) -> bool:
        face = KINDS[number % len(KINDS)]
        text = f"request {number}"
        messages = [{"role": "user", "content": text}]
        body = face.body | {name: text for name in ("input", "prompt") if name in face.body}
        body |= {"messages": messages} if "messages" in face.body else {}
        if face in FACES.values():
            body |= {"stream": number % 3 > 0}
        headers = bearer(self._token) | {"X-Request-Id": f"n{number}"}
        with open_stream(url, "POST", face.path, body, headers, timeout=20) as stream:
            if leaves:
                stream.read_some(20)
                return False
            stream.read_all(20)
            return stream.complete and stream.status == 200


@contextmanager
def asking(client: NumberedClient, loops: int) -> Iterator[None]:
    """So many loops ask until the end of the block."""
    with ThreadPoolExecutor(loops) as pool:
        running = [pool.submit(client.run, seed) for seed in range(loops)]
        try:
            yield
        finally:
            client.stop()
        for each in running:
            each.result(30)
