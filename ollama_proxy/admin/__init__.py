"""The admin API: tokens, usage, models, upstreams and settings for operators and their scripts."""

from ollama_proxy.admin.api import ADMIN_API, ADMIN_ROUTES, SCOPES, build_api

__all__ = ["ADMIN_API", "ADMIN_ROUTES", "SCOPES", "build_api"]
