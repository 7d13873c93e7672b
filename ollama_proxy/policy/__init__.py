"""Who may do what: small functions for single rules, independent of dialects and upstreams."""

from ollama_proxy.policy.access import (
    INVALID_NAME,
    PUBLIC,
    UNNAMED,
    check_cloud,
    check_lease,
    check_name,
    check_ollama_names,
    check_own_names,
    check_scope,
    keep_alive_s,
)
from ollama_proxy.policy.addresses import (
    MAX_URL_CHARS,
    NO_WEB_ADDRESS,
    Address,
    FetchPolicy,
    as_address,
    is_own,
    is_web_address,
    plain_host,
)
from ollama_proxy.policy.auth import GENERATE, MANAGE, PATH_BOX_KEY, READ, Authenticator, PathPrefix, Principal
from ollama_proxy.policy.brute_force import SEEN, AuthFailureLimiter
from ollama_proxy.policy.configured_tokens import REDACTED, TOKEN_CHARS, TOKENS, candidates
from ollama_proxy.policy.model_aliases import NO_RULES, ModelAlias, ModelAliases
from ollama_proxy.policy.model_names import (
    DEFAULT_TAG,
    canonical,
    is_allowed,
    is_local,
    is_plain,
    renamed,
    split_upstream,
)
from ollama_proxy.policy.origins import OriginPolicy
from ollama_proxy.policy.overrides import edited_system, limits, merged_keep_alive, merged_options, with_system

__all__ = [
    "Address",
    "AuthFailureLimiter",
    "Authenticator",
    "DEFAULT_TAG",
    "FetchPolicy",
    "GENERATE",
    "INVALID_NAME",
    "MANAGE",
    "MAX_URL_CHARS",
    "ModelAlias",
    "ModelAliases",
    "NO_RULES",
    "NO_WEB_ADDRESS",
    "OriginPolicy",
    "PUBLIC",
    "PathPrefix",
    "PATH_BOX_KEY",
    "Principal",
    "READ",
    "REDACTED",
    "SEEN",
    "TOKENS",
    "TOKEN_CHARS",
    "UNNAMED",
    "as_address",
    "candidates",
    "canonical",
    "check_cloud",
    "check_lease",
    "check_name",
    "check_ollama_names",
    "check_own_names",
    "check_scope",
    "edited_system",
    "is_allowed",
    "is_local",
    "is_own",
    "is_plain",
    "is_web_address",
    "keep_alive_s",
    "limits",
    "merged_keep_alive",
    "merged_options",
    "plain_host",
    "renamed",
    "split_upstream",
    "with_system",
]
