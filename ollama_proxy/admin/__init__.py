"""The admin pages and API: tokens, usage, models, upstreams and settings for
operators and their scripts."""

from ollama_proxy.admin.api import ADMIN_API, ADMIN_ROUTES, SCOPES, build_api
from ollama_proxy.admin.model_jobs import ModelJobs
from ollama_proxy.admin.pages import (
    ADMIN_PAGES,
    CSRF_HEADER,
    NAMED_USER_KEY,
    PAGE_ROUTES,
    PAGE_SCOPES,
    PageSessions,
    SessionStore,
    build_pages,
    check_csrf,
    check_origin,
    find_caller,
    read_cookie,
    read_user_header,
)

__all__ = [
    "ADMIN_API",
    "ADMIN_PAGES",
    "ADMIN_ROUTES",
    "CSRF_HEADER",
    "ModelJobs",
    "NAMED_USER_KEY",
    "PAGE_ROUTES",
    "PAGE_SCOPES",
    "PageSessions",
    "SCOPES",
    "SessionStore",
    "build_api",
    "build_pages",
    "check_csrf",
    "check_origin",
    "find_caller",
    "read_cookie",
    "read_user_header",
]
