"""Caches: one with limits that neither many entries nor large ones exceed, and one of facts that
are fetched again after a while, so that not every request has to fetch them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from sys import getsizeof
from typing import Generic, TypeVar

from ollama_proxy.errors import CallEnded, GatewayError
from ollama_proxy.upstreams.call import Call

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

#: Bytes of an entry besides its key and its value: its places in the table and in
#: the order, and its size.
ENTRY_BYTES = 250

#: Longest wait for a fact, in seconds: an answer without it is better than a late answer.
WAIT_S = 5.0

#: How long it is remembered that an upstream did not answer, in seconds: only one
#: caller waits in vain.
UNKNOWN_KEPT_S = 10.0

#: The most facts that are kept, and bytes of them.
MOST, MOST_BYTES = 1000, 4 << 20


@dataclass(eq=False, repr=False)
class BoundedCache(Generic[K, V]):
    """Values by key, limited in entries and in bytes. The least recently used go first, and a value
    that alone is over the limit is not kept. `get` takes 0.2 us, `put` about 3 us."""

    max_entries: int
    max_bytes: int
    #: About how much memory the entries take.
    bytes: int = 0
    _entries: OrderedDict[K, tuple[V, int]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries, the least recently used first."""
        return ((key, value) for key, (value, _) in self._entries.items())

    def get(self, key: K) -> V | None:
        """The value, which becomes the most recently used; None if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V) -> None:
        """Stores a value, which must not grow afterwards."""
        self.drop(key)
        size = ENTRY_BYTES + memory_of(key) + memory_of(value)
        self._entries[key] = (value, size)
        self.bytes += size
        while len(self._entries) > self.max_entries or self.bytes > self.max_bytes:
            self.bytes -= self._entries.popitem(last=False)[1][1]

    def drop(self, key: K) -> None:
        """Removes a value, if there is one."""
        entry = self._entries.pop(key, None)
        self.bytes -= entry[1] if entry else 0

    def clear(self) -> None:
        """Removes all entries."""
        self._entries.clear()
        self.bytes = 0


def memory_of(value: object) -> int:
    """Bytes of a value: texts, numbers, collections and dataclasses with their content; other
    objects only themselves, because they are referenced elsewhere as well."""
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        size += getsizeof(one)
        if isinstance(one, Mapping):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif is_dataclass(one) and not isinstance(one, type):
            waiting += [getattr(one, each.name) for each in fields(one)]
    return size


class TtlCache(Generic[T]):
    """Facts by their key, each valid for `keep_s` seconds."""

    def __init__(self, keep_s: float, most: int = MOST) -> None:
        self._keep_s = keep_s
        #: By key: until when it is valid, and the fact.
        self._known = BoundedCache[Hashable, tuple[float, T | None]](most, MOST_BYTES)

    def get(self, key: Hashable, call: Call, ask: Callable[[Call], T]) -> T | None:
        """The fact, fetched by `ask` if it is not known; None if the upstream does not
        answer. Raises CallEnded."""
        known = self._known.get(key)
        if known is not None and call.clock.monotonic() < known[0]:
            return known[1]
        limits = replace(call.timeouts, first_byte_s=WAIT_S, idle_s=WAIT_S, total_s=WAIT_S)
        try:
            fact, keep_s = ask(call.branch(limits)), self._keep_s
        except CallEnded:
            raise
        except GatewayError:
            if call.clock.monotonic() >= call.ends_at:
                return None  # the caller's own time was too short, which says nothing to others
            fact, keep_s = None, UNKNOWN_KEPT_S
        self._known.put(key, (call.clock.monotonic() + keep_s, fact))
        return fact
