"""A gateway starts while the database of its records is away."""

from __future__ import annotations

from tests.rig.gateway import Gateway


def test_a_store_that_is_away_does_not_stop_the_start() -> None:
    config = {
        "auth": {"generate_tokens": ["start-token-1"]},
        "service": {"base_url": "demo:"},
        "records": {"url": "postgresql://nobody@127.0.0.1:9/records"},
    }
    with Gateway(config, records=True, workers=1, own_interpreter=True) as gateway:
        assert gateway.ask("/api/tags").status == 200
