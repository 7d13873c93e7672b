"""Where usage is recorded: addresses of databases, whose passwords are shown nowhere, and
how usage is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.records import DatabaseUrl, Records
from ollama_proxy.settings.schema import Settings, settings_from
from tests.rig.tables import each_row


def load(text: str, **environ: str) -> Settings:
    return settings_from(text.encode(), Path("c.yaml"), environ)


def test_usage_is_recorded_beside_the_configuration_by_default() -> None:
    expected = Records(
        DatabaseUrl("sqlite:state/records.db"), retention_days=90, timezone="UTC", currency="USD"
    )
    assert Settings().records == expected


def test_records_of_the_file_and_of_variables() -> None:
    text = "records: {url: null, retention_days: 7, currency: EUR}"
    records = load(text, OLLAMA_PROXY__RECORDS__TIMEZONE="Europe/Berlin").records
    assert records == Records(None, retention_days=7, timezone="Europe/Berlin", currency="EUR")


@each_row(
    ("url", "shown"),
    [
        ("sqlite:state/records.db", "sqlite:state/records.db"),
        ("sqlite:/var/lib/records.db", "sqlite:/var/lib/records.db"),
        ("sqlite:///var/lib/records.db", "sqlite:///var/lib/records.db"),
        ("postgresql://db1/usage", "postgresql://db1/usage"),
        ("postgresql://op@db1:5433/usage", "postgresql://********@db1:5433/usage"),
        (
            "postgresql://op:CANARY@[::1]/usage?sslmode=require",
            "postgresql://********@[::1]/usage?********",
        ),
        (
            "postgresql:///usage?host=/run/postgresql&password=CANARY",
            "postgresql:///usage?********",
        ),
    ],
)
def test_a_database_is_shown_without_its_password(url: str, shown: str) -> None:
    parsed = load(f"records: {{url: '{url}'}}").records.url
    assert parsed is not None
    assert (str(parsed), repr(parsed), parsed.secret) == (shown, shown, url)
    assert parsed.has_password == ("CANARY" in url)


@each_row(
    "url",
    [
        *(
            "records.db",
            "sqlite:",
            "sqlite://host/records.db",
            "sqlite::memory:",
            "sqlite:state/",
            "mysql://db1/usage",
        ),
        *(
            "postgresql://db1",
            "postgresql:///usage",
            "postgresql://db1:x/usage",
            "postgresql://:CAN/ARY@db1/usage",
        ),
        *("postgresql://:CAN#ARY@db1/usage", "postgresql://db1/usage?password=a@b"),
    ],
)
def test_an_invalid_address_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match=r"records.url must be sqlite:PATH") as raised:
        load(f"records: {{url: '{url}'}}")
    assert "CAN" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "{timezone: europe/berlin}",
            "records.timezone must be a time zone such as UTC or Europe/Berlin, did",
        ),
        ("{retention_days: 0}", "records.retention_days must be a whole number from 1 to 36500"),
        ("{currency: dollars}", "records.currency must be a currency such as USD"),
    ],
)
def test_mistakes_are_named(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(f"records: {text}")
