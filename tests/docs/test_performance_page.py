"""docs/performance.md has the tables of the published record."""

from __future__ import annotations

import pytest

from benchmarks.page import (
    BLOCKS,
    PAGE,
    PUBLISHED,
    fill_page,
    make_published,
    publish_work,
    read_record,
)
from benchmarks.works import WORKS


def test_tables_are_those_of_the_published_record() -> None:
    """After a change: `python -m benchmarks.page --write`."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == fill_page(page, read_record(PUBLISHED))


def test_every_workload_is_published() -> None:
    assert read_record(PUBLISHED)["works"].keys() == {work.name for work in WORKS}


def test_a_block_without_a_place_in_the_page_is_an_error() -> None:
    for name in BLOCKS:
        page = PAGE.read_text(encoding="utf-8").replace(f"<!-- /{name} -->", "")
        with pytest.raises(ValueError, match=f"0 places for '{name}'"):
            fill_page(page, read_record(PUBLISHED))


def test_each_record_is_published_with_its_number_of_workers() -> None:
    measures = {
        "gateway": {"value": 0.6, "errors": 0},
        "floor": {"value": 0.3, "errors": 0},
        "litellm": {"value": 0.1, "errors": 1},
    }
    work = {"budget": 1.3, "ratio": 2.0, "verdict": "OVER", "unit": "ms/req", "measures": measures}
    machine = dict.fromkeys(("date", "cpu", "cores", "kernel", "python", "load_average"), "")
    one, two = (
        {"machine": machine, "options": {"workers": count}, "works": {"single": work}}
        for count in (1, 2)
    )
    published = make_published(one, [two])
    assert list(published["workers"]) == ["1", "2"]
    assert published["works"]["single"] == publish_work(work)
    assert publish_work(work) == {
        "budget": 1.3,
        "ratio": 2.0,
        "verdict": "OVER",
        "gateway": 0.6,
        "floor": 0.3,
    }
