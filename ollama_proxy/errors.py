"""Every failure that the gateway tells somebody about.

    ConfigError                         a file or a variable an operator must mend
    GatewayError                        one client call fails; a dialect renders it
     +- BadRequest              400     the client must change what it sends
     |   +- BodyCut             400     it stopped in the middle of its body
     |       +- SlowBody        408     it took too long over it
     +- AuthError               401     no token, a wrong one, or two different ones
     +- Forbidden               403     the token may not do this
     |   +- ForeignHost         403     no authentication, and the host name is not of this machine
     |   +- ForeignOrigin       403     the web page that sends it may not
     +- NotFound                404
     |   +- ModelNotFound       404
     +- MethodNotAllowed        405
     +- BodyTooLarge            413
     +- UnsupportedMediaType    415
     +- LimitError              429
     |   +- TooManyGuesses      429     its address has sent too many wrong tokens
     +- InternalError           500
     +- Overloaded              503     more at once than this worker can do
     +- CallEnded                       the call is over, wherever it was
     |   +- ClientGone          499     nobody is left to be told
     |   +- TokenRevoked        401     the caller may not go on
     |   +- GatewayStopping     503     there was no time left to finish
     +- UpstreamError           502
         +- UpstreamAuthError    502     it wants credentials that we don't have
         +- UpstreamConnect     503     it never saw the request
         +- UpstreamTimeout     504
         +- UpstreamCut         502     the answer stopped before its end
         +- UpstreamRefused     as the upstream said
             +- PromptTooLong   400     the prompt does not fit into the model's context

`str(error)` is the public sentence. `detail` goes to the log only: neither may hold tokens, prompts or answers.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Texts that existing users look for, each followed by the other language.
MISSING_TOKEN = (
    "未提供认证token: no token was sent. Use the header 'Authorization: Bearer <token>' or 'x-api-key: <token>'."
)
#: For Ollama's command line, which can send no header.
MISSING_TOKEN_IN_ADDRESS = (
    "未提供认证token: no token was sent. Put it into the address: OLLAMA_HOST=http://<gateway>:8080/k/<token>."
)
WRONG_TOKEN = "非授权访问: this token is not valid here. Ask the operator of this gateway for one."
MANY_WRONG_TOKENS = (
    "非授权访问次数过多: too many wrong tokens came from your address, so for up to a minute no new one is looked at."
)
CONNECT_FAILED = "Failed to connect to Ollama service: 无法连接到 Ollama 服务，请稍后重试。"

#: What a busy upstream's 503 carries when it doesn't say how long to wait, and Ollama never does; in seconds.
BUSY_RETRY_S = 5


class ConfigError(Exception):
    """A configuration that can't be used; `complaints` has one readable line per fault."""

    def __init__(self, complaints: Sequence[str] | str) -> None:
        self.complaints: list[str] = [complaints] if isinstance(complaints, str) else list(complaints)
        super().__init__("\n".join(self.complaints))


class GatewayError(Exception):
    """One client call fails with `status`; `slug` is stable and safe to match on."""

    status = 500
    slug = "internal_error"
    text = "The gateway failed to handle this request."
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
        super().__init__(text or self.text)
        #: The request field at fault, in the client's own words.
        self.param = param
        #: For the log only.
        self.detail = detail
        #: Seconds after which a retry makes sense; None: no such promise.
        self.retry_after_s = retry_after_s


class BadRequest(GatewayError):
    status = 400
    slug = "invalid_request"
    text = "The request is not valid."


class BodyCut(BadRequest):
    """The client stopped in the middle of its body: it is told, if it is still there."""

    slug = "body_cut"
    text = "The request body was cut short."
    state = "client_gone"


class SlowBody(BodyCut):
    status = 408
    slug = "body_too_slow"
    text = "The request body did not arrive in time."


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
    text = "This token lacks the permission for this request."


class ForeignHost(Forbidden):
    slug = "host_not_allowed"
    text = (
        "This gateway requires no token, so it does not answer to this host name; its operator can add the name to "
        "server.allowed_hosts."
    )


class ForeignOrigin(Forbidden):
    slug = "origin_not_allowed"
    text = "This gateway requires no token, so pages of other web sites may not call it."


class NotFound(GatewayError):
    status = 404
    slug = "not_found"
    text = "This path does not exist."


class ModelNotFound(NotFound):
    slug = "model_not_found"
    text = "The model does not exist."


class MethodNotAllowed(GatewayError):
    status = 405
    slug = "method_not_allowed"
    text = "This path does not support this method."


class BodyTooLarge(GatewayError):
    status = 413
    slug = "body_too_large"
    text = "The request body is too large."


class UnsupportedMediaType(GatewayError):
    status = 415
    slug = "unsupported_media_type"
    text = "This endpoint accepts only JSON."


class LimitError(GatewayError):
    status = 429
    slug = "rate_limited"
    text = "Too many requests; try again later."


class TooManyGuesses(LimitError):
    text = MANY_WRONG_TOKENS


class InternalError(GatewayError):
    state = "aborted"


class Overloaded(GatewayError):
    status = 503
    slug = "overloaded"
    text = "This gateway is at its limit of concurrent requests; try again in a moment."


class CallEnded(GatewayError):
    """The whole call is over, whatever was being done for it."""


class TokenRevoked(CallEnded):
    status = 401
    slug = "token_revoked"
    text = "非授权访问: the token of this request was withdrawn while it was being answered."


class GatewayStopping(CallEnded):
    status = 503
    slug = "gateway_stopping"
    text = "This gateway is shutting down and could not complete the answer in time; try again."
    state = "aborted"


class ClientGone(CallEnded):
    status = 499
    slug = "client_gone"
    text = "The client closed the connection."
    state = "client_gone"


class UpstreamError(GatewayError):
    """The upstream answered with something that can't be used."""

    status = 502
    slug = "upstream_error"
    text = "The model server sent an invalid response."
    state = "upstream_error"


class UpstreamAuthError(UpstreamError):
    """It wants credentials that this gateway does not have: not the client's fault, so never the client's 401."""

    #: Statuses that mean it.
    statuses = (401, 402, 407)
    text = "The model server refused this gateway's own credentials."


class UpstreamConnect(UpstreamError):
    status = 503
    slug = "upstream_unreachable"
    text = CONNECT_FAILED
    #: How long it was tried, in seconds.
    took_s = 0.0


class UpstreamTimeout(UpstreamError):
    status = 504
    slug = "upstream_timeout"
    text = "The model server took too long to answer."
    state = "timeout"


class UpstreamCut(UpstreamError):
    slug = "upstream_cut"
    text = "The model server stopped in the middle of its answer."


class UpstreamRefused(UpstreamError):
    """The upstream said no: `status` is its own where that says so, the text what it said."""

    slug = "upstream_refused"

    def __init__(self, status: int, text: str, *, retry_after_s: int | None = None, final: bool = False) -> None:
        """`final`: asking again would not help, because a quota is used up."""
        if not 400 <= status < 600:
            status = UpstreamError.status
        self.final = final
        # A 404 of an address that exists is about the model.
        super().__init__(text, param="model" if status == 404 else None, retry_after_s=retry_after_s)
        self.status = status
        if status < 500:
            # The client's doing, not the upstream's.
            self.state = GatewayError.state
            self.slug = ModelNotFound.slug if status == 404 else BadRequest.slug


class PromptTooLong(UpstreamRefused):
    """The prompt does not fit into the model's context; nothing of it was cut, and nothing was answered."""

    def __init__(self, text: str, *, remedy: str = "shorten it") -> None:
        super().__init__(400, f"{text}: {remedy}")
        self.slug = "context_length_exceeded"
