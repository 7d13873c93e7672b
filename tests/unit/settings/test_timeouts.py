"""Timeouts, and those that an upstream or a model replaces."""

from __future__ import annotations

import pytest

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.timeouts import OVERRIDES, Timeouts
from ollama_proxy.settings.yaml_file import parse_value


def test_later_overrides_win_and_the_rest_stays() -> None:
    timeouts = Timeouts(connect_s=1.0).override({"idle_s": 5.0, "total_s": 6.0}, {"idle_s": 7.0})
    assert (timeouts.connect_s, timeouts.idle_s, timeouts.total_s) == (1.0, 7.0, 6.0)
    assert timeouts.first_byte_s == Timeouts().first_byte_s


def test_overrides_name_timeouts_only() -> None:
    assert OVERRIDES.parse(parse_value("{idle_s: 5}", "line 1", "timeouts")) == {"idle_s": 5.0}
    for wrong in ("{idle: 5}", "{idle_s: 0}", "[5]"):
        with pytest.raises(ConfigError):
            OVERRIDES.parse(parse_value(wrong, "line 1", "timeouts"))
