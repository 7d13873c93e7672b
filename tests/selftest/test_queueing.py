"""The simulation of the queue: boxes behave like Ollama, and the scheduler keeps what
docs/sharing.md promises."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.queueing import shared
from benchmarks.queueing.__main__ import find_misses, run
from benchmarks.queueing.simulation import (
    FairSharing,
    FirstComeFirstServed,
    Job,
    SimulatedBox,
    Simulation,
)
from benchmarks.queueing.traces import (
    TRACES,
    batch_night,
    box_loss,
    greedy_script,
    ping_pong,
    script_with_one_model,
    two_models,
)
from ollama_proxy.coordination import Scheduler
from tests.rig.redis_server import RedisServer
from tests.rig.tiers import LONG


def test_simulated_box_starts_in_order_and_replaces_only_unused_models() -> None:
    box = SimulatedBox("box1", 2, 1, {"a": 10, "b": 5})
    for number, model in enumerate("aba"):
        box.queue.append(Job(str(number), "user", model, 0, 1))
    first = box.start_next(0)
    assert first and (first[0].start_s, first[1]) == (10, 10)
    # One slot is free, but the first of the queue needs a model for which there is no room.
    assert box.start_next(1) is None
    del box.running["0"]
    second = box.start_next(11)
    assert second and (second[0].id, second[0].start_s) == ("1", 16)
    assert (list(box.loaded), box.loads) == (["b"], 2)


def test_targets_are_met() -> None:
    makes = (greedy_script, ping_pong, script_with_one_model, two_models)
    results = {
        make().name: (run(make, FirstComeFirstServed), run(make, FairSharing)) for make in makes
    }
    assert find_misses(results) == []


def test_nobody_is_starved() -> None:
    longest = {make.__name__: max(run(make, FairSharing).people()) for make in TRACES[:-1]}
    assert {name: wait_s for name, wait_s in longest.items() if wait_s >= 100} == {}


class Cut(FairSharing):
    """Goes on with what is loaded from the scheduler's document, again and again."""

    def _decide(self, call, *arguments, **options):  # type: ignore[no-untyped-def]
        if len(self.costs) % 23 == 0:
            document = json.loads(json.dumps(self._scheduler.dump()))
            self._scheduler = Scheduler.load(document, self._scheduler.limits)
        return super()._decide(getattr(self._scheduler, call.__name__), *arguments, **options)


#: The longest one is left to `make long`.
LOADED = [greedy_script, ping_pong, box_loss, *([batch_night] if LONG else [])]


@pytest.mark.parametrize("make", LOADED)
def test_scheduler_loaded_from_a_document_decides_the_same(make: type) -> None:
    runs = [Simulation(make(), share).run() for share in (FairSharing, Cut)]
    first, second = ([(job.start_s, job.end_s) for job in each.jobs.values()] for each in runs)
    assert first == second


def test_requests_on_a_lost_box_are_tried_again_and_runs_are_the_same() -> None:
    runs = [Simulation(box_loss(), FairSharing).run() for _ in range(2)]
    first, second = (
        {job.id: (job.start_s, job.end_s, job.attempts) for job in each.jobs.values()}
        for each in runs
    )
    assert first == second
    assert {attempts for _, _, attempts in first.values()} == {1, 2}


def test_cost_with_redis_is_measured_and_nothing_stays_there(redis_server: RedisServer) -> None:
    assert re.fullmatch(
        r"\| 3 \|( \d+\.\d ms \(\d+\.\d ms\) \|){2} \d+ kB \|", shared.run(redis_server.url, 3)
    )
    assert redis_server.ask("DBSIZE") == ":0"
