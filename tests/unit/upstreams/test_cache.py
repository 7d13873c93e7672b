"""Every cache of the process, in one list: what it is keyed by, and how much it can hold."""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ollama_proxy.errors import (
    ClientGone,
    GatewayError,
    UpstreamConnect,
    UpstreamRefused,
    UpstreamTimeout,
)
from ollama_proxy.hub import Message, ToolCall
from ollama_proxy.settings.upstreams import Timeouts
from ollama_proxy.upstreams import cache as cache_module
from ollama_proxy.upstreams.cache import ENTRY_BYTES, WAIT_S, BoundedCache, TtlCache, memory_of
from ollama_proxy.upstreams.call import Call
from ollama_proxy.upstreams.openai.messages import ReasoningCache, Thought
from tests.rig.source_code import trees
from tests.rig.tables import each_row

MIB = 1 << 20

#: Attributes that are a BoundedCache: entries, MiB.
BOUNDED = {
    "upstreams.cache.TtlCache._known": (1000, 4),
    "upstreams.fleet.model_index.Fleet._routes": (10_000, 8),
    "upstreams.fleet.balancer.Balancer._last": (10_000, 8),
    "upstreams.fleet.node.Node._failing": (1000, 1),
    "upstreams.fleet.node.Node._warm": (1000, 1),
    "upstreams.openai.upstream.OpenAICompatibleUpstream._stream_only": (1000, 1),
    "upstreams.openai.messages.ReasoningCache._kept": (10_000, 16),
    "upstreams.anthropic.messages.Thoughts._kept": (10_000, 8),
    "upstreams.transport.session.HttpTransport._prepared": (256, 0.25),
}

#: Functions whose results are kept: entries, and why an entry is small.
FUNCTIONS = {
    "admin.api.build_document": (None, "one document of 60 KB"),
    "admin.pages.blueprint.pack_asset": (64, "static files of our own"),
    "admin.pages.blueprint.read_asset": (64, "static files of our own"),
    "server.request.is_trusted": (1024, "an address of at most 45 characters"),
    "server.request._networks": (16, "the proxies of the configuration"),
    "server.request._plain_address": (1024, "at most 45 characters"),
    "server.incoming._make_environ_key": (1024, "at most MAX_CACHED_NAME bytes"),
    "server.response._http_date": (2, "a date"),
    "settings.managed._parse_key": (256, "the fields of a key, as an operator wrote them"),
    "telemetry.access_log._format_second": (2, "a time"),
    "server.response._lower_name": (1024, "headers of our own and those that are passed on"),
    "server.response._status_line": (256, "statuses of our own and of upstreams"),
    "policy.brute_force.origin_of": (
        1024,
        "an address of at most 64 characters, or the socket's own",
    ),
    "gateway.conversion.documents._kept": (None, "one BoundedCache: 100 documents, 16 MiB"),
    "gateway.conversion.process._slots": (None, "one semaphore"),
    "gateway.images._lookups": (None, "one thread pool"),
    "gateway.images._wait_timer": (None, "one timer"),
}

#: Other collections that live as long as the process: what bounds them.
BOUNDED_OTHERWISE = {
    "admin.pages.live.Listener.seen": "one state of the gateway",
    "admin.pages.live.LiveState._frames": "one for each language",
    "admin.pages.live.LiveState._listeners": "open pages, see server.max_connections",
    "admin.pages.live.LiveState._state": "one state of the gateway",
    "admin.pages.page.Page.rules": "routes",
    "admin.pages.page.Page.scopes": "routes",
    "admin.routes.Section.rules": "routes",
    "admin.routes.Section.scopes": "routes",
    "coordination.coordinator.Coordinator.detached": "workers",
    "coordination.advances.Advances._advances": "flows that asked in the last 50 ms",
    "coordination.advances.Advances._unreported": "flows with requests that ended in the last 50 ms",
    "coordination.admissions.WorkerRequests.tickets": "attempts in flight, see server.max_in_flight",
    "coordination.admissions.WorkerRequests.admissions": "requests in flight",
    "coordination.admissions.WorkerRequests._reused": "slots that requests took in the last 50 ms",
    "coordination.coordinator.Coordinator._announced": "attempts in flight of all workers",
    "coordination.counters.MemoryStorage._counters": "limits used in the last day or month; removed by _sweep",
    "coordination.counters.MemoryStorage._windows": "limits used in the last minutes; removed by _sweep",
    "coordination.kept_slots.KeptSlots.slots": "slots of the last 50 ms, at most requests in flight",
    "coordination.kept_slots.KeptSlots._called_back_s": "boxes that requests waited for: those of the configuration",
    "coordination.client.CoordinatorClient._reports": "boxes of the configuration",
    "coordination.client.CoordinatorClient._questions": "requests in flight that ask it, for ten seconds at most",
    "coordination.limits.Limiter._recorded": "tokens and users of the last month; replaced as a whole",
    "coordination.records_client.RecordsClient.settings": "one section of the configuration",
    "coordination.records_client.RecordsClient._problems": "what one frame says",
    "coordination.recording.Recording._workers": "workers",
    "records.service.RecordsService._greenlets": "three",
    "coordination.coordinator.Coordinator._entries": "attempts in flight of all workers",
    "coordination.coordinator.Coordinator.sessions": "workers",
    "coordination.coordinator.Session._requests": "attempts in flight of a worker",
    "coordination.admissions.WorkerRequests._ended": "requests that end in the seconds until a coordinator is there",
    "coordination.coordinator.Session._exchanges": "requests in flight of a worker",
    "coordination.coordinator.Session.boxes": "boxes of the configuration",
    "records.importer.Importer._positions": "files of the spool, which is limited to 1 GiB",
    "records.rows.HourlySums._offsets": "1,000 numbers",
    "upstreams.cache.BoundedCache._entries": "its own limits",
    "policy.brute_force.AuthFailureLimiter._windows": "10,000 addresses, each with 8 digests of 32 bytes",
    "gateway.gateway.Gateway._followers": "open pages, see server.max_connections",
    "gateway.gateway.Gateway._open": "requests in flight, at most server.max_in_flight",
    "server.client_watch.ClientWatch._calls": "requests in flight",
    "upstreams.transport.connection.WaitTimer._waiting": "requests in flight",
    "server.connections.Connections._new": "connections, at most server.max_connections",
    "server.connections.Connections._kept": "connections, at most server.max_connections",
    "server.connections.Connections._busy": "connections, at most server.max_connections",
    "server.connections.Connections._lingering": "connections, at most server.max_connections",
    "gateway.images.Lookups._slots": "callers with a look-up that runs or waits",
    "telemetry.access_log.LineWriter._waiting": "50,000 lines, while a log can't be written",
    "telemetry.usage_record.KnownModels._names": "4 spellings of each of 1,000 models",
    "telemetry.usage_record.KnownModels._spellings": "1,000 models",
    "telemetry.chat_log.DayFiles._waiting": "64 MiB of records",
    "telemetry.metrics.Metrics._breakers": "models that upstreams list",
    "telemetry.metrics.Metrics._changed": "series, see MOST_SERIES",
    "telemetry.metrics.Metrics._labels": "MOST_REMEMBERED",
    "telemetry.metrics.Metrics._outcomes": "MOST_REMEMBERED",
    "telemetry.metrics.Metrics._waiting": "requests that ended in the last second",
    "telemetry.metrics_files.MetricsFiles._files": "kinds of metrics",
    "telemetry.metrics_files.MetricsFiles._sizes": "kinds of metrics",
    "telemetry.metrics_series.Distribution._changed": "bounds of a histogram",
    "telemetry.metrics_series.Series._values": "10,000 and those of models without a name",
    "policy.auth.Principal.limits": "limits of the configuration",
    "policy.auth.Principal.user_limits": "limits of the configuration",
    "server.live_settings.LiveSettings._skipped": "keys, models and upstreams that operators added",
    "settings.managed.Managed.tokens": "keys that operators made",
    "settings.managed.Managed.models": "models that operators added",
    "settings.managed.Managed.upstreams": "upstreams that operators added",
    "settings.tokens.Token.limits": "limits of the configuration",
    "policy.configured_tokens.ConfiguredTokens._clean": "1,024 texts of at most 256 characters",
    "policy.configured_tokens.ConfiguredTokens._shapes": "tokens of the configuration",
    "upstreams.anthropic.upstream.AnthropicUpstream._told": "what a provider lists, in one answer of at most 64 MiB",
    "upstreams.fleet.model_index.Fleet._fetching": "upstreams of the configuration",
    "upstreams.fleet.model_list.Listing.models": "what an upstream lists, in one answer of at most 64 MiB",
    "upstreams.fleet.node.Node.accounted": "models of requests in flight",
    "upstreams.fleet.health.Health._checks": "upstreams of the configuration",
    "upstreams.fleet.health.Health._checked_at": "upstreams of the configuration",
    "upstreams.fleet.health.Health._said": "upstreams of the configuration",
    "upstreams.ollama.loaded_contexts.LoadedContexts._contexts": "models that an upstream has loaded, in one answer",
    "upstreams.transport.session.Pool._idle": "256 idle connections",
    "coordination.shared_state.SharedState.machines": "machines with a lease, and the boxes of their configurations",
    "coordination.state.Group.lanes": "sets of boxes and models for which requests wait or run",
    "coordination.scheduler.Scheduler._boxes": "boxes of the configuration",
    "coordination.scheduler.Scheduler._groups": "boxes of the configuration",
    "coordination.scheduler.Scheduler._open": "boxes of the configuration",
    "coordination.scheduler.Scheduler._waiting": "requests that wait, at most the queue's limit",
    "coordination.scheduler.Scheduler._running": "slots of all boxes",
    "coordination.scheduler.Scheduler._queues": "flows, of which idle ones are forgotten",
    "coordination.scheduler.Scheduler._timers": "64, and four for each request that waits",
    "coordination.concurrency.MemoryConcurrency.running": "requests in flight",
    "coordination.limits.Calendar._periods": "the current day and month",
    "coordination.limits.Limiter._running": "requests in flight",
    "coordination.redis_scheduler.RedisScheduler._entries": "requests in flight",
    "coordination.redis_scheduler.RedisScheduler._views": "boxes of the configuration",
    "coordination.state.Estimates.means": "4,096 means",
    "coordination.state.Estimates.prompts": "the prompts of all boxes",
    "coordination.state.Box.running": "slots of the box",
    "coordination.state.Box.loaded": "models that the box has room for, or has reported",
    "coordination.state.Box.prompts": "slots of the box, at most 64",
    "coordination.state.FlowQueue.waiting": "requests that wait, at most the queue's limit",
    "coordination.state.Lane.order": "requests that wait, at most the queue's limit",
    "coordination.state.Lane.overtaken_s": "boxes of the configuration",
    "coordination.state.Lane.queues": "flows, of which idle ones are forgotten",
}

#: Classes whose instances live as long as one request, or as one reading of the configuration.
SHORT_LIVED = frozenset(
    {
        "admin.model_jobs.Progress",
        "admin.model_matrix.Box",
        "admin.pages.sessions.Stored",
        "coordination.state.BoxView",
        "dialects.anthropic.messages.Blocks",
        "dialects.dialect.Routes",
        "dialects.native.render._NativeRenderer",
        "dialects.openai.messages._Calls",
        "dialects.openai.render._OpenAIRenderer",
        "dialects.responses.events.OpenItem",
        "dialects.responses.input_items.History",
        "dialects.responses.input_items._Turn",
        "dialects.responses.output_items.ResponseShape",
        "dialects.responses.render.CompactionRenderer",
        "dialects.responses.render.ResponseRenderer",
        "dialects.responses.tools.Toolbox",
        "gateway.exchange.Exchange",
        "gateway.retries.Attempts",
        "gateway.retries.RereadReply",
        "gateway.retries.RunningAttempt",
        "gateway.server_broadcast.Broadcast",
        "hub.Done",
        "hub.EmbedAnswer",
        "hub.ModelRequest",
        "hub.Tool",
        "records.check.Report",
        "records.foreign_tokens.ForeignToken",
        "records.importer._Batch",
        "server.incoming.ChunkedBody",
        "server.response.Response",
        "settings.schema.Settings",
        "settings.yaml_file.Complaints",
        "settings.yaml_file.Entry",
        "telemetry.transcript.Transcript",
        "telemetry.transcript._Answer",
        "telemetry.usage_record.UsageRecord",
        "upstreams.anthropic.codec.Parameters",
        "upstreams.anthropic.events.Block",
        "upstreams.anthropic.events.MessageReader",
        "upstreams.anthropic.messages.Calls",
        "upstreams.anthropic.messages.Turns",
        "upstreams.call.Call",
        "upstreams.demo.transport.DemoReply",
        "upstreams.ollama.codec.ChatDecoder",
        "upstreams.openai.answers.ChunkDecoder",
        "upstreams.openai.messages._Turns",
        "upstreams.openai.pieces.ToolCallParts",
        "upstreams.openai.pieces._Parts",
        "upstreams.pending_calls.PendingCalls",
        "wire.lines.LineSplitter",
        "wire.lines.SseSplitter",
        "wire.lines.StreamEnd",
        "wire.sse_passthrough.EventTail",
    }
)


def is_empty_collection(value: ast.expr | None) -> bool:
    """Whether an expression makes a collection with nothing in it, which may grow."""
    if isinstance(value, ast.Dict | ast.List | ast.Set):
        return not ast.unparse(value).strip("{}[]")
    if not isinstance(value, ast.Call):
        return False
    factories = [each.value for each in value.keywords if each.arg == "default_factory"]
    made = ast.unparse(factories[0] if factories else value.func).partition("[")[0]
    return made in (
        "BoundedCache",
        "OrderedDict",
        "deque",
        "dict",
        "set",
        "list",
        "defaultdict",
        "Counter",
    )


def declared(kind: ast.ClassDef) -> Iterator[tuple[str, ast.expr | None]]:
    """Attributes of a dataclass with their defaults, and those that an `__init__`
    sets, with their values."""
    for each in kind.body:
        if isinstance(each, ast.AnnAssign):
            yield ast.unparse(each.target), each.value
        elif isinstance(each, ast.FunctionDef) and each.name == "__init__":
            yield from assigned(each)


def assigned(init: ast.FunctionDef) -> Iterator[tuple[str, ast.expr | None]]:
    """Attributes that an `__init__` sets, with their values."""
    for node in ast.walk(init):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                    yield target.attr, node.value


def collections() -> Iterator[tuple[str, str]]:
    """`module.Class` and attribute of every collection that an instance of the package begins with
    empty; "" for the class of those of modules."""
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and is_empty_collection(node.value):
                yield module, ast.unparse(node)
            if isinstance(node, ast.ClassDef):
                empty = (name for name, value in declared(node) if is_empty_collection(value))
                yield from ((f"{module}.{node.name}", name) for name in empty)


def test_every_growing_collection_is_listed_with_its_bound() -> None:
    found = list(collections())
    kept = {f"{owner}.{name}" for owner, name in found if owner not in SHORT_LIVED}
    assert kept == BOUNDED.keys() | BOUNDED_OTHERWISE.keys()
    assert {owner for owner, _ in found} >= SHORT_LIVED


def test_every_cached_function_is_listed() -> None:
    for name in trees():
        # LiteLLM is an extra, which need not be installed, and `__main__` runs the command line.
        if "litellm" not in name and not name.endswith("__main__"):
            importlib.import_module(f"ollama_proxy.{name}".removesuffix("."))
    # The objects of imported modules are frozen; see tests/conftest.py.
    gc.disable()
    gc.unfreeze()
    wrappers = [each for each in gc.get_objects() if type(each) is functools._lru_cache_wrapper]
    gc.freeze()
    gc.enable()
    ours = [each for each in wrappers if each.__module__.startswith("ollama_proxy.")]
    found = {
        f"{each.__module__}.{each.__name__}".removeprefix("ollama_proxy."): each.cache_parameters()[
            "maxsize"
        ]
        for each in ours
    }
    assert found == {name: entries for name, (entries, _) in FUNCTIONS.items()}


@each_row("place", BOUNDED)
def test_cache_limits_match_the_list(place: str) -> None:
    """By the source: many of these classes can't be made without an upstream."""
    owner, _, attribute = place.rpartition(".")
    module, _, name = owner.rpartition(".")
    code = importlib.import_module(f"ollama_proxy.{module}")
    [kind] = [
        node
        for node in trees()[module].body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    [init] = [
        node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    [made] = [value for found, value in assigned(init) if found == attribute]
    assert isinstance(made, ast.Call) and ast.unparse(made.func).startswith("BoundedCache")
    positional = init.args.args
    defaults = dict(
        zip(
            [each.arg for each in positional][-len(init.args.defaults) :],
            init.args.defaults,
            strict=False,
        )
    )
    limits = [
        eval(ast.unparse(defaults.get(ast.unparse(each), each)), vars(code)) for each in made.args
    ]
    entries, mib = BOUNDED[place]
    assert limits == [entries, mib * MIB]


def test_long_addresses_are_not_cached() -> None:
    request = importlib.import_module("ollama_proxy.server.request")
    request._plain_address.cache_clear()
    for number in range(2000):
        assert request.plain_address(f"fe80::1%{'x' * 4000}{number}") == ""
    assert request._plain_address.cache_info().currsize == 0


def test_long_header_names_are_not_cached() -> None:
    incoming = importlib.import_module("ollama_proxy.server.incoming")
    incoming._environ_key.cache_clear()
    limits = incoming.HeadLimits(line_bytes=4096, field_bytes=8190, fields=100)
    for number in range(50):
        request = incoming.IncomingRequest({}, limits, None)
        request.feed(b"GET / HTTP/1.1\r\nX-%s-%d: 1\r\n\r\n" % (b"n" * 4000, number))
        assert f"HTTP_X_{'N' * 4000}_{number}" in request.environ
    assert incoming._environ_key.cache_info().currsize == 0


# The cache itself.


def test_least_recently_used_entries_are_evicted_first() -> None:
    cache = BoundedCache[str, int](2, MIB)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_bytes_are_limited_for_large_keys_and_large_values() -> None:
    keys, values = BoundedCache[str, str](1000, MIB), BoundedCache[int, str](1000, MIB)
    for number in range(100):
        keys.put(f"{number}" * 30_000, "")
        values.put(number, "x" * 30_000)
    assert keys.bytes <= MIB and values.bytes <= MIB
    assert 5 < len(keys) < 40 and len(values) == MIB // (
        30_000 + ENTRY_BYTES + memory_of("") + memory_of(1)
    )


def test_oversized_value_is_not_kept_and_its_key_is_dropped() -> None:
    cache = BoundedCache[str, str](10, 10_000)
    cache.put("a", "small")
    cache.put("a", "x" * 20_000)
    assert (cache.get("a"), len(cache), cache.bytes) == (None, 0, 0)


def test_replaced_dropped_and_cleared_entries_are_not_counted() -> None:
    cache = BoundedCache[str, str](10, MIB)
    for _ in range(3):
        cache.put("a", "x" * 1000)
    once = cache.bytes
    cache.put("b", "x" * 1000)
    cache.drop("b")
    cache.drop("b")
    assert cache.bytes == once
    cache.clear()
    assert (cache.bytes, len(cache)) == (0, 0)


def test_nested_objects_count_towards_the_size() -> None:
    thought = Thought("x" * 1000, [{"data": "y" * 1000}])
    assert memory_of(thought) > 2000
    assert memory_of((b"key" * 100, {"a": ["b" * 500]})) > 800


def fill_thoughts(cache: ReasoningCache) -> None:
    for number in range(10_000):
        call = ToolCall(f"call_{number}", "f", {})
        cache.keep(Message("user", str(number)), [call], Thought("x"))


def fill_names(cache: BoundedCache[str, float]) -> None:
    for number in range(3000):
        cache.put(f"{number}".ljust(512, "x"), float(number))


@pytest.mark.parametrize(
    ("cache", "fill", "most_mib"),
    [(ReasoningCache(), fill_thoughts, 16), (BoundedCache[str, float](1000, MIB), fill_names, 1)],
    ids=["short thoughts", "names of 512 bytes"],
)
def test_measured_memory_is_within_the_limit(
    cache: Any, fill: Callable[[Any], None], most_mib: float
) -> None:
    tracemalloc.start()
    try:
        fill(cache)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < most_mib * MIB


class Source:
    """Tells a new number each time, or fails."""

    def __init__(self, *failures: GatewayError) -> None:
        self.calls: list[Call] = []
        self._failures = list(failures)

    def __call__(self, call: Call) -> int:
        self.calls.append(call)
        if self._failures:
            raise self._failures.pop(0)
        return len(self.calls)


@pytest.fixture
def call() -> Call:
    return Call(Timeouts())


def test_a_fact_is_asked_for_once(call: Call) -> None:
    known, source = TtlCache[int](60), Source()
    assert [known.get("a", call, source) for _ in range(3)] == [1, 1, 1]


def test_each_key_has_its_own_fact(call: Call) -> None:
    known, source = TtlCache[int](60), Source()
    assert [known.get(key, call, source) for key in ("a", "b", "a")] == [1, 2, 1]


def test_an_old_fact_is_asked_for_again(call: Call) -> None:
    known, source = TtlCache[int](0.0), Source()
    assert [known.get("a", call, source) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "failure", [UpstreamConnect(), UpstreamTimeout(), UpstreamRefused(404, "no")]
)
def test_no_fact_is_no_failure_and_is_not_asked_for_at_once_again(
    failure: GatewayError, call: Call
) -> None:
    known, source = TtlCache[int](60), Source(failure)
    assert [known.get(key, call, source) for key in "aab"] == [None, None, 2]


def test_what_nobody_told_is_asked_for_again_after_a_while(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "UNKNOWN_KEPT_S", 0.0)
    known, source = TtlCache[int](60), Source(UpstreamTimeout())
    assert [known.get("a", call, source) for _ in range(3)] == [None, 2, 2]


def test_caller_who_has_no_time_leaves_nothing_to_the_others(call: Call) -> None:
    known, source = TtlCache[int](60), Source(UpstreamTimeout())
    assert known.get("a", Call(Timeouts(total_s=0.0)), source) is None
    assert known.get("a", call, source) == 2


def test_client_that_has_left_is_not_forgotten(call: Call) -> None:
    with pytest.raises(ClientGone):
        TtlCache[int](60).get("a", call, Source(ClientGone()))


def test_the_upstream_has_little_time_to_tell_and_the_call_keeps_its_own(call: Call) -> None:
    source, before = Source(), call.timeouts
    TtlCache[int](60).get("a", call, source)
    waits = source.calls[0].timeouts
    assert (waits.first_byte_s, waits.idle_s, waits.total_s) == (WAIT_S,) * 3
    assert call.timeouts == before


def test_asking_ends_no_later_than_the_call_and_leaves_with_it() -> None:
    call, source = Call(Timeouts(total_s=0.5)), Source()
    TtlCache[int](60).get("a", call, source)
    assert source.calls[0].ends_at == call.ends_at
    call.leave()
    assert source.calls[0].ended


def test_only_so_many_are_kept_and_the_oldest_goes(call: Call) -> None:
    known, source = TtlCache[int](60, most=2), Source()
    assert [known.get(key, call, source) for key in "abcbca"] == [1, 2, 3, 2, 3, 4]
