"""The contexts that an Ollama server has loaded its models with, to recognise
answers that outgrew them.

Since 0.30 an answer does not report that the engine dropped its oldest tokens. Its counts reveal
it: together they are more than the context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import gevent

from ollama_proxy.clock import Clock
from ollama_proxy.errors import GatewayError
from ollama_proxy.hub import Json
from ollama_proxy.policy import canonical
from ollama_proxy.settings import Timeouts
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.ollama.codec import count

#: Since 0.30 engines round their contexts up to a multiple of this; in tokens.
CONTEXT_UNIT = 256

#: How long a list can rule out that an answer outgrew its context, in seconds. Only
#: a newer one proves it.
RULES_OUT_FOR_S = 5.0

#: How long an answer waits for a newer list at most, and the pause after a failure
#: to get one; in seconds.
WAIT_S, FAILURE_KEPT_S = 0.5, 10.0

_TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=2.0, idle_s=2.0, total_s=2.0)


def read_contexts(rows: Sequence[Mapping[str, Json]]) -> dict[str, int]:
    """The contexts of loaded models, by their canonical names; `rows`: those of `/api/ps`."""
    contexts = {canonical(row["name"]): count(row.get("context_length")) for row in rows}
    return {name: length for name, length in contexts.items() if length}


@dataclass(slots=True, eq=False)
class LoadedContexts:
    """The last list of a server; `ask` fetches the rows of a newer one."""

    _ask: Callable[[Call], Sequence[Mapping[str, Json]]]
    _contexts: Mapping[str, int] = field(default_factory=dict)
    #: Monotonic times of the last list, and of the last failure to get one.
    _read_at: float = -inf
    _failed_at: float = -inf
    _reading: gevent.Greenlet[[Clock], None] | None = None

    def note(self, rows: Sequence[Mapping[str, Json]], read_at: float) -> None:
        """Keeps a list that was read for another reason, at this monotonic time."""
        self._contexts, self._read_at = read_contexts(rows), read_at

    def is_exceeded(self, model: str, tokens: int, requested: int | None, clock: Clock) -> bool:
        """Whether so many tokens did not fit into the context of a model; `requested`: the
        request's own `num_ctx`.

        The server is asked only if the tokens may be too many by what is known, so hardly ever."""
        if tokens <= CONTEXT_UNIT:
            return False
        name = canonical(model)
        now = clock.monotonic()
        known = self._contexts.get(name) if now - self._read_at < RULES_OUT_FOR_S else None
        if tokens <= min(known or CONTEXT_UNIT, requested or inf):
            return False
        if now - self._failed_at >= FAILURE_KEPT_S:
            if self._reading is None or self._reading.dead:
                self._reading = gevent.spawn(self._read, clock)
            clock.join([self._reading], WAIT_S)
        context = self._contexts.get(name) if self._read_at >= now else None
        # An engine is started with a multiple of the unit; without a `num_ctx` its
        # context could be anything.
        started_with = -(-requested // CONTEXT_UNIT) * CONTEXT_UNIT if requested else inf
        return tokens > (context or started_with)

    def _read(self, clock: Clock) -> None:
        try:
            self.note(self._ask(Call(_TIMEOUTS, clock)), clock.monotonic())
        except GatewayError:
            self._failed_at = clock.monotonic()
