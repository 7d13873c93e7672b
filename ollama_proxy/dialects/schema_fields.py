"""The fields of which the request schemas of the translated dialects consist,
and errors that name them.

Every field of a request is mapped to the hub, carried to upstreams that know it, or
refused. Fields that are in no schema are carried, too. A response header names the carried
fields that had no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from ollama_proxy.errors import BadRequest
from ollama_proxy.hub import Json

MAPPED, CARRIED, REFUSED = "mapped", "carried", "refused"


class RequestField(fields.Field[Any]):
    """A field with its handling; null is the same as absent."""

    def __init__(
        self, check: Callable[[Json], bool], expected: str, handling: str = MAPPED
    ) -> None:
        super().__init__(allow_none=True)
        self.check = check
        self._expected = expected
        self.handling = handling

    def _deserialize(self, value: Json, attr: str | None, data: Any, **kwargs: Any) -> Json:
        if not self.check(value):
            raise ValidationError(self._expected)
        return value


def is_number(value: Json) -> bool:
    """Whether a value is a number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Json) -> bool:
    """Whether a value is an integer, also written 5.0, that fits in 64 bits: upstreams
    can't read a larger one."""
    return is_number(value) and abs(value) < 2**63 and float(value).is_integer()


def is_texts(value: Json) -> bool:
    """Whether a value is an array of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# The types of fields; each takes its handling, MAPPED by default.

#: A number that is not true or false.
number = partial(RequestField, is_number, "must be a number")

#: A number without a fraction, also written 5.0.
whole_number = partial(RequestField, is_whole, "must be an integer")

flag = partial(RequestField, lambda value: isinstance(value, bool), "must be a boolean")
text = partial(RequestField, lambda value: isinstance(value, str), "must be a string")
mapping = partial(RequestField, lambda value: isinstance(value, dict), "must be an object")
listing = partial(RequestField, lambda value: isinstance(value, list), "must be an array")

#: Any value; the code that reads it checks it.
anything = partial(RequestField, lambda value: True, "")


def refused(why: str, *harmless: Json) -> RequestField:
    """A field that is not supported, except with one of the `harmless` values, which
    ask for nothing special."""
    return RequestField(
        lambda value: any(value == one and type(value) is type(one) for one in harmless),
        why,
        REFUSED,
    )


class Extensions(Schema):
    """The fields that every translated dialect accepts besides its own:
    clients of Ollama send them."""

    class Meta:
        unknown = EXCLUDE

    def __init__(self) -> None:
        super().__init__()
        #: The checks of the fields: loading a body whose fields pass them, as nearly all
        #: do, would cost far more.
        self.checks = {
            name: field.check
            for name, field in self.fields.items()
            if isinstance(field, RequestField)
        }

    options = mapping()
    # Ollama's options, except those that nearly every API has under the same names.
    num_ctx = whole_number()
    num_predict = whole_number()
    num_keep = whole_number()
    num_batch = whole_number()
    num_gpu = whole_number()
    main_gpu = whole_number()
    num_thread = whole_number()
    draft_num_predict = whole_number()
    use_mmap = flag()
    top_k = whole_number()
    min_p = number()
    typical_p = number()
    repeat_last_n = whole_number()
    repeat_penalty = number()
    seed = whole_number()
    stop = RequestField(
        lambda value: isinstance(value, str) or is_texts(value),
        "must be a string or an array of strings",
    )
    mirostat = whole_number()
    mirostat_tau = number()
    mirostat_eta = number()
    keep_alive = anything()
    think = anything()
    exclude_reasoning = flag()
    truncate = flag()
    request_timeout = whole_number()
    timeout_ms = whole_number()
    _debug_render_only = refused("is not supported", False)


def check_fields(schema: Extensions, data: dict[str, Json]) -> None:
    """Raises BadRequest with the error of every invalid field."""
    checks = schema.checks
    for name, value in data.items():
        if value is not None and name in checks and not checks[name](value):
            complaints = schema.validate(data)
            names = sorted(map(str, complaints))
            raise BadRequest(
                "; ".join(f"{name}: {complaints[name][0]}" for name in names), param=names[0]
            )


def passthrough_fields(schema: Schema, data: dict[str, Json]) -> dict[str, Json]:
    """Return the fields that the hub has no name for, without those that are null or empty."""
    known = schema.fields
    return {
        name: value
        for name, value in data.items()
        if value not in (None, [], {})
        and (name not in known or getattr(known[name], "handling", MAPPED) == CARRIED)
    }


def as_object(value: Json, param: str) -> dict[str, Json]:
    """Return the value if it is an object; raises BadRequest."""
    return value if isinstance(value, dict) else raise_invalid(param, "must be an object")


def as_text(value: Json, param: str) -> str:
    """Return the value if it is a string; raises BadRequest."""
    return value if isinstance(value, str) else raise_invalid(param, "must be a string")


def as_array(value: Json, param: str) -> list[Json]:
    """Return the value if it is an array; raises BadRequest."""
    return value if isinstance(value, list) else raise_invalid(param, "must be an array")


def text_in(data: Mapping[str, Json], name: str, where: str) -> str:
    """Return the string in a field of the object at `where`, "" if it is
    absent; raises BadRequest."""
    return as_text(data.get(name) or "", f"{where}.{name}")


def load_model_name(data: Mapping[str, Json]) -> str:
    """Return the model that a request names; raises BadRequest if it names none."""
    return str(data.get("model") or "") or raise_invalid("model", "is required")


def raise_invalid(param: str, why: str) -> NoReturn:
    """Raises BadRequest for a field of the request, with its name in the text."""
    raise BadRequest(f"{param}: {why}", param=param)
