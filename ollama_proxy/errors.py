"""Every error that the gateway reports to operators or clients.

    ConfigError                         a file or a variable that the operator must correct
    GatewayError                        one call of a client failed; a dialect renders it
     +- BadRequest              400     the client must change the request
     |   +- BodyCut             400     the client stopped within the body
     |       +- SlowBody        408     the body took too long
     +- AuthError               401     no token, an invalid one, or two different ones
     +- Forbidden               403     the token does not permit this
     |   +- ForeignHost         403     no authentication, and a host name of another machine
     |   +- ForeignOrigin       403     no authentication, and the request is from a web page
     +- NotFound                404
     |   +- ModelNotFound       404
     +- MethodNotAllowed        405
     |   +- NoWebSocket         426     the client asked for a WebSocket, which no path has
     +- Conflict                409     it exists already, or the configuration file defines it
     +- BodyTooLarge            413
     +- UnsupportedMediaType    415
     +- LimitError              429
     |   +- TooManyGuesses      429     too many invalid tokens from this address
     |   +- RateLimited         429     a limit of the token or of the user is reached
     |       +- QuotaExceeded   429     nothing is left of what is allowed per day or month
     +- InternalError           500
     +- Overloaded              503     the worker has no capacity left
     |   +- QueueFull           503     too many requests wait for the model already
     |   +- QueueTimeout        503     no slot became free in time
     +- RecordsUnavailable  503     the database of the records can't be reached now
     +- CallEnded                       the call was ended, in any phase
     |   +- ClientGone          499     the client closed the connection
     |   +- TokenRevoked        401     the token was removed from the configuration
     |   +- GatewayStopping     503     the answer could not be finished in time
     |   +- ShuttingDown        503     the request was still waiting when the gateway was stopped
     +- UpstreamError           502
         +- UpstreamAuthError    502     it requires other credentials
         +- UpstreamConnect     503     it did not receive the request
         +- UpstreamTimeout     504
         +- UpstreamCut         502     the answer was incomplete
         +- UpstreamRefused     status of the upstream
             +- PromptTooLong   400     the prompt does not fit into the model's context

`str(error)` is the public text, `detail` is for the log only; neither may contain
tokens, prompts or answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ollama_proxy.texts import Translatable

#: Bilingual texts that existing users search for.
MISSING_TOKEN = Translatable(
    "未提供认证token: no token was sent. Use the header 'Authorization: Bearer <token>' or "
    "'x-api-key: <token>'."
)
#: For Ollama's command line, which can send no header.
MISSING_TOKEN_IN_ADDRESS = Translatable(
    "未提供认证token: no token was sent. Put it into the address: "
    "OLLAMA_HOST=http://<gateway>:8080/k/<token>."
)
WRONG_TOKEN = Translatable(
    "非授权访问: this token is not valid here. Ask the operator of this gateway for one."
)
MANY_WRONG_TOKENS = Translatable(
    "非授权访问次数过多: too many wrong tokens came from your address, so for up to a minute no "
    "new one is looked at."
)
CONNECT_FAILED = Translatable(
    "Failed to connect to Ollama service: 无法连接到 Ollama 服务，请稍后重试。"
)

#: From so many seconds on a wait is told in units of so many seconds, and their name.
_WAIT_UNITS = ((120, 60, "minute"), (7200, 3600, "hour"), (172_801, 86_400, "day"))

#: Retry-After for the 503 of a busy upstream without that header, such as Ollama, in seconds.
BUSY_RETRY_S = 5


class ConfigError(Exception):
    """An invalid configuration; `complaints` has one line for each error."""

    def __init__(self, complaints: Sequence[str] | str) -> None:
        self.complaints: list[str] = (
            [complaints] if isinstance(complaints, str) else list(complaints)
        )
        super().__init__("\n".join(self.complaints))


class GatewayError(Exception):
    """One call of a client fails with `status`; programs may rely on `slug`, which is stable."""

    status = 500
    slug = "internal_error"
    text: str = Translatable("The gateway failed to handle this request.")
    #: Final state of the exchange in the access log.
    state = "refused"

    def __init__(
        self,
        text: str | None = None,
        *,
        param: str | None = None,
        detail: str = "",
        retry_after_s: int | None = None,
    ) -> None:
        self.text = text or self.text
        super().__init__(self.text)
        #: The invalid field, as it is called in the request.
        self.param = param
        #: For the log only.
        self.detail = detail
        #: Seconds after which the client may retry; None: unknown.
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        # Without this, `str` would make a plain string of a text that is translatable.
        return self.text


class BadRequest(GatewayError):
    status = 400
    slug = "invalid_request"
    text = Translatable("The request is not valid.")


class BodyCut(BadRequest):
    """The client stopped within its body; it gets the answer if it is still connected."""

    slug = "body_cut"
    text = Translatable("The request body was cut short.")
    state = "client_gone"


class SlowBody(BodyCut):
    status = 408
    slug = "body_too_slow"
    text = Translatable("The request body did not arrive in time.")


class AuthError(GatewayError):
    status = 401
    slug = "invalid_token"
    text = WRONG_TOKEN


class MissingToken(AuthError):
    slug = "missing_token"
    text = MISSING_TOKEN


class Forbidden(GatewayError):
    status = 403
    slug = "not_allowed"
    text = Translatable("This token lacks the permission for this request.")


class ForeignHost(Forbidden):
    slug = "host_not_allowed"
    text = Translatable(
        "This gateway requires no token, so it does not answer to this host name; its operator can "
        "add the name to server.allowed_hosts."
    )


class ForeignOrigin(Forbidden):
    slug = "origin_not_allowed"
    text = Translatable(
        "This gateway requires no token, so pages of other web sites may not call it."
    )


class NotFound(GatewayError):
    status = 404
    slug = "not_found"
    text = Translatable("This path does not exist.")


class ModelNotFound(NotFound):
    slug = "model_not_found"
    text = Translatable("The model does not exist.")


class MethodNotAllowed(GatewayError):
    status = 405
    slug = "method_not_allowed"
    text = Translatable("This path does not support this method.")


class NoWebSocket(MethodNotAllowed):
    """Clients that try a WebSocket first use plain HTTP at once if they get this status."""

    status = 426
    slug = "no_websocket"
    text = Translatable("This gateway has no WebSockets; send the request with POST.")


class Conflict(GatewayError):
    status = 409
    slug = "conflict"
    text = Translatable("This exists already.")


class BodyTooLarge(GatewayError):
    status = 413
    slug = "body_too_large"
    text = Translatable("The request body is too large.")


class UnsupportedMediaType(GatewayError):
    status = 415
    slug = "unsupported_media_type"
    text = Translatable("This endpoint accepts only JSON.")


class LimitError(GatewayError):
    status = 429
    slug = "rate_limited"
    text = Translatable("Too many requests; try again later.")


class TooManyGuesses(LimitError):
    text = MANY_WRONG_TOKENS


class RateLimited(LimitError):
    """A limit per minute, or that of concurrent requests."""

    slug = "rate_limit_exceeded"

    def __init__(self, limit: str, key: str, *, retry_after_s: int) -> None:
        """`limit`: the name of the setting; `key`: "token:NAME" or "user:TOKEN/USER",
        only its kind is told."""
        what, whose = limit.replace("gpu_", "GPU ").replace("_", " "), key.partition(":")[0]
        what = what.replace("concurrent", "concurrent requests")
        size, unit = 1, "second"
        for least_s, unit_s, name in _WAIT_UNITS:
            if retry_after_s >= least_s:
                size, unit = unit_s, name
        count = math.ceil(retry_after_s / size)
        wait = f"{count} {unit}" if count == 1 else f"{count} {unit}s"
        super().__init__(
            f"The limit of {what} of this {whose} is reached; try again in {wait}.",
            retry_after_s=retry_after_s,
        )
        #: For the rendering of the error; also in its text.
        self.limit = limit


class QuotaExceeded(RateLimited):
    """The quota of the token or user for this day or month is used up, so a
    retry would not help."""

    slug = "insufficient_quota"


class InternalError(GatewayError):
    state = "aborted"


class Overloaded(GatewayError):
    status = 503
    slug = "overloaded"
    text = Translatable(
        "This gateway is at its limit of concurrent requests; try again in a moment."
    )


class QueueFull(Overloaded):
    slug = "queue_full"
    text = Translatable("Too many requests are waiting for this model already; try again later.")


class QueueTimeout(Overloaded):
    slug = "queue_timeout"
    text = Translatable(
        "The model had no time for this request before its longest wait was over; try again later."
    )


class RecordsUnavailable(GatewayError):
    """The database can't be reached, is locked for too long, or can't write."""

    status = 503
    slug = "records_unavailable"
    text = Translatable(
        "The database of the records is not available at the moment; try again later."
    )


class CallEnded(GatewayError):
    """The whole call was ended, in whatever phase it was."""


class TokenRevoked(CallEnded):
    status = 401
    slug = "token_revoked"
    text = Translatable(
        "非授权访问: the token of this request was withdrawn while it was being answered."
    )


class GatewayStopping(CallEnded):
    status = 503
    slug = "gateway_stopping"
    text = Translatable(
        "This gateway is shutting down and could not complete the answer in time; try again."
    )
    state = "aborted"


class ShuttingDown(CallEnded):
    """The request was waiting for a slot, so no upstream has received it."""

    status = 503
    slug = "shutting_down"
    text = Translatable(
        "This gateway is shutting down, and the request was still waiting for a model; try again."
    )
    state = "aborted"

    def __init__(
        self, text: str | None = None, *, detail: str = "", retry_after_s: int = 1
    ) -> None:
        super().__init__(text, detail=detail, retry_after_s=retry_after_s)


class ClientGone(CallEnded):
    status = 499
    slug = "client_gone"
    text = Translatable("The client closed the connection.")
    state = "client_gone"


class UpstreamError(GatewayError):
    """The answer of the upstream is invalid."""

    status = 502
    slug = "upstream_error"
    text: str = Translatable("The model server sent an invalid response.")
    state = "upstream_error"


class UpstreamAuthError(UpstreamError):
    """The upstream refused the gateway's credentials. It is not the client's error,
    so it is never a 401."""

    #: The statuses that mean this.
    statuses = (401, 402, 407)
    text = Translatable("The model server refused this gateway's own credentials.")


class UpstreamConnect(UpstreamError):
    status = 503
    slug = "upstream_unreachable"
    text = CONNECT_FAILED
    #: Duration of the attempt, in seconds.
    took_s = 0.0


class UpstreamTimeout(UpstreamError):
    status = 504
    slug = "upstream_timeout"
    text = Translatable("The model server took too long to answer.")
    state = "timeout"


class UpstreamCut(UpstreamError):
    slug = "upstream_cut"
    text = Translatable("The model server stopped in the middle of its answer.")


class UpstreamRefused(UpstreamError):
    """The upstream refused the request: `status` is its own if it is an error status,
    the text its message."""

    slug = "upstream_refused"

    def __init__(
        self, status: int, text: str, *, retry_after_s: int | None = None, final: bool = False
    ) -> None:
        """`final`: a retry would not help, because a quota is used up."""
        if not 400 <= status < 600:
            status = UpstreamError.status
        self.final = final
        # The address exists, so a 404 is about the model.
        super().__init__(
            text, param="model" if status == 404 else None, retry_after_s=retry_after_s
        )
        self.status = status
        if status < 500:
            # Caused by the client, not by the upstream.
            self.state = GatewayError.state
            self.slug = ModelNotFound.slug if status == 404 else BadRequest.slug


class PromptTooLong(UpstreamRefused):
    """The prompt does not fit into the model's context; it was neither truncated nor answered."""

    def __init__(
        self, text: str, *, remedy: str = "shorten it", tokens: int = 0, context: int = 0
    ) -> None:
        """`tokens`: those of the prompt; `context`: how many fit; 0 for both
        if they are not known."""
        if tokens and context:
            text = (
                f"the prompt has {tokens} tokens and exceeds the available "
                f"context size of {context}"
            )
        super().__init__(400, f"{text}: {remedy}")
        self.slug = "context_length_exceeded"
        self.tokens, self.context = tokens, context
