"""What a scrape says: its samples by name and labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.rig.gateway import Gateway

#: By the name without `ollama_proxy_`, and the labels.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_metrics(text: str) -> Samples:
    """The samples of a scrape. Raises AssertionError if one of them is there twice."""
    found = [
        (
            (sample.name.removeprefix("ollama_proxy_"), frozenset(sample.labels.items())),
            sample.value,
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def scrape(gateway: Gateway) -> Samples:
    """A scrape from this machine, by any of the workers."""
    answer = gateway.ask("/metrics", token=None)
    assert answer.status == 200, answer
    return parse_metrics(answer.body.decode())


def total(samples: Samples, name: str, **labels: str) -> float | None:
    """The sum of the samples with this name and these labels; None: there is none."""
    found = [
        value
        for (each, has), value in samples.items()
        if each == name and labels.items() <= dict(has).items()
    ]
    return sum(found) if found else None
