"""The end of a worker: with the service, or to make way for a new worker."""

from __future__ import annotations

from ollama_proxy.gateway.draining import Lifecycle


def test_a_worker_that_ends_with_the_service_is_leaving() -> None:
    worker = Lifecycle()
    assert not worker.is_leaving
    worker.is_draining = True
    assert worker.is_leaving


def test_a_worker_that_others_replace_is_not() -> None:
    worker = Lifecycle()
    worker.is_draining = True
    worker.replace()
    # What replace() made is for the next generation; the worker itself was forked before it.
    assert worker.is_leaving


def test_a_forked_worker_sees_that_its_master_replaces_it() -> None:
    master, worker = Lifecycle(), Lifecycle()
    worker._generation = master._generation
    worker.is_draining = True
    master.replace()
    assert not worker.is_leaving


def test_nothing_is_cut_unless_somebody_says_what() -> None:
    assert Lifecycle().cut() == 0


def test_nobody_is_refused_unless_somebody_says_who_waits() -> None:
    Lifecycle().refuse_waiting()
