"""What workers may ask the records for: functions of this package, by the name in the frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ollama_proxy.hub import Json
from ollama_proxy.records import audit, managed_settings, reports, tokens


class RecordsCall(NamedTuple):
    """A function that takes an open connection, and the arguments of the frame."""

    function: Callable[..., Json]
    #: Whether it changes anything; then its transaction takes the lock for that first.
    writes: bool = False


CALLS: Mapping[str, RecordsCall] = {
    "usage": RecordsCall(reports.usage),
    "requests": RecordsCall(reports.requests),
    "last_used": RecordsCall(reports.last_used),
    "list_tokens": RecordsCall(tokens.list_tokens),
    "show_token": RecordsCall(tokens.show_token),
    "create_token": RecordsCall(tokens.create_token, writes=True),
    "change_token": RecordsCall(tokens.change_token, writes=True),
    "rotate_token": RecordsCall(tokens.rotate_token, writes=True),
    "delete_token": RecordsCall(tokens.delete_token, writes=True),
    "list_settings": RecordsCall(managed_settings.list_settings),
    "create_setting": RecordsCall(managed_settings.create_setting, writes=True),
    "put_setting": RecordsCall(managed_settings.put_setting, writes=True),
    "change_setting": RecordsCall(managed_settings.change_setting, writes=True),
    "delete_setting": RecordsCall(managed_settings.delete_setting, writes=True),
    "list_audit": RecordsCall(audit.list_audit),
    "add_audit": RecordsCall(audit.add, writes=True),
}
