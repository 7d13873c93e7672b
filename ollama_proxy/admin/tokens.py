"""Tokens: those of the configuration file, which are shown, and those of the
records, which can be changed.

The text of a token is made in the worker that answers, and is in that answer only; the records get
its digest and its first characters.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Response
from marshmallow import fields
from marshmallow.validate import OneOf

from ollama_proxy.admin.records import change, check_not_in_file, has_records, query
from ollama_proxy.admin.routes import Section, current_gateway
from ollama_proxy.admin.schemas import Answer, declared, text, time
from ollama_proxy.errors import NotFound
from ollama_proxy.hub import Json
from ollama_proxy.settings import RECORDS, KeyFields, identify_token, new_token
from ollama_proxy.settings import Token as SettingsToken
from ollama_proxy.settings import describe_token as describe_fields
from ollama_proxy.texts import Translatable

SECTION = Section("tokens", "Who may call, and how much.", path="tokens")


class Users(Answer):
    """The people behind a token."""

    header = fields.String(allow_none=True)
    limits = fields.Dict(keys=fields.String(), values=fields.Float(allow_none=True))


class Token(Answer):
    """A token, never with its text or digest."""

    name = fields.String()
    source = fields.String(validate=OneOf(["file", "records"]))
    where = fields.String(
        allow_none=True, metadata={"description": "File and line; null for those of the records."}
    )
    prefix = fields.String(
        allow_none=True, metadata={"description": "Its first characters; null: not known."}
    )
    scopes = fields.List(fields.String())
    models = fields.List(
        fields.String(), allow_none=True, metadata={"description": "Patterns; null: every model."}
    )
    expires = fields.String(allow_none=True, metadata={"format": "date"})
    weight = fields.Float(allow_none=True)
    priority = fields.String(allow_none=True)
    limits = fields.Dict(keys=fields.String(), values=fields.Float(allow_none=True))
    users = fields.Nested(Users, allow_none=True)
    note = fields.String(allow_none=True)
    disabled = fields.Boolean()
    created_at = time(allow_none=True)
    created_by = fields.String(allow_none=True)
    last_used = time(allow_none=True)


class NewToken(Token):
    """A token with its text, which is shown this once."""

    token = fields.String()


class Tokens(Answer):
    """Every token, those of the file first."""

    tokens = fields.List(fields.Nested(Token))


TokenChange = declared("TokenChange", KeyFields)
TokenRequest = declared(
    "TokenRequest", KeyFields, name=text("Name in logs and usage.", required=True)
)


@SECTION.route("GET", answer=Tokens)
def list_tokens() -> Json:
    """Every token, those of the configuration file first."""
    return {"tokens": list(describe_tokens().values())}


@SECTION.route("POST", body=TokenRequest, answer=NewToken, status=201)
def create_token(body: dict[str, Json]) -> Json:
    """Creates a token, and shows its text, this once."""
    name = body.pop("name")
    check_not_in_file("tokens", name)
    token = new_token()
    digest, prefix = identify_token(token)
    row = change("create_token", name=name, fields=body, digest=digest, prefix=prefix)
    return describe_row(row) | {"token": token}


@SECTION.route("GET", "/<name>", answer=Token)
def show_token(name: str) -> Json:
    """One token."""
    found = describe_tokens().get(name)
    if found is None:
        raise NotFound(Translatable("There is no token %(name)s.", name=name[:100]), param="name")
    return found


@SECTION.route("PATCH", "/<name>", body=TokenChange, answer=Token)
def change_token(body: dict[str, Json], name: str) -> Json:
    """Changes fields of a token; null removes one. Takes effect within two seconds."""
    check_not_in_file("tokens", name)
    return describe_row(change("change_token", name=name, changes=body))


@SECTION.route("DELETE", "/<name>", status=204)
def delete_token(name: str) -> Response:
    """Deletes a token. Within two seconds it is refused, and its streams end."""
    check_not_in_file("tokens", name)
    change("delete_token", name=name)
    return Response(status=204)


@SECTION.route("POST", "/<name>/rotate", answer=NewToken)
def rotate_token(name: str) -> Json:
    """Replaces the text of a token, and shows the new one, this once. The old one ends
    as if it were deleted."""
    check_not_in_file("tokens", name)
    token = new_token()
    digest, prefix = identify_token(token)
    row = change("rotate_token", name=name, digest=digest, prefix=prefix)
    return describe_row(row) | {"token": token}


def describe_tokens() -> dict[str, dict[str, Json]]:
    """Every token by name; one of the records that has the name of one in the file has no
    effect, and is not shown."""
    rows, used = (query("list_tokens"), query("last_used")) if has_records() else ([], {})
    listed = current_gateway().settings.auth.tokens()
    in_file = {each.name: describe_token(each, used) for each in listed if each.where != RECORDS}
    return in_file | {row["name"]: describe_row(row) for row in rows if row["name"] not in in_file}


def describe_token(token: SettingsToken, used: Mapping[str, str]) -> dict[str, Json]:
    """A token of the file. `used`: when each was used last."""
    known = describe_fields(token, current_gateway().settings.auth.scopes_of(token))
    unknown = dict.fromkeys(("prefix", "created_at", "created_by"))
    place = {"name": token.name, "source": "file", "where": token.where or None}
    return {**place, **unknown, **known, "last_used": used.get(token.name)}


def describe_row(row: Mapping[str, Json]) -> dict[str, Json]:
    """A token of the records."""
    return {**row, "source": "records", "where": None}
