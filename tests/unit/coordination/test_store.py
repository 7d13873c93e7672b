"""Where slots and limits are kept."""

from __future__ import annotations

import pytest

from ollama_proxy.coordination.limits import Subject
from ollama_proxy.coordination.store import Store, make_share


@pytest.mark.parametrize(("share", "most"), [(0.5, 5), (0.01, 1)])
def test_share_of_a_limit_is_at_least_one(share: float, most: int) -> None:
    limits = [Subject("token:team", {"requests_per_minute": 10})]
    store = make_share(share)
    left = store.limiter.describe(limits)["token:team"]["requests_per_minute"]
    assert (store.share, left["remaining"]) == (share, most)


def test_store_of_this_process_is_never_lost_and_knows_no_other_machine() -> None:
    store = make_share(1.0)
    assert isinstance(store, Store)
    assert (store.is_shared, store.failures, store.count_machines(), store.read_statuses()) == (
        False,
        (),
        1,
        (),
    )
