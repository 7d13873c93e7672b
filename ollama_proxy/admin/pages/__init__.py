"""The admin pages: for operators, and for members what concerns their own token."""

from ollama_proxy.admin.pages.blueprint import ADMIN_PAGES, PAGE_ROUTES, PAGE_SCOPES, build_pages
from ollama_proxy.admin.pages.csrf import CSRF_HEADER, check_csrf, check_origin
from ollama_proxy.admin.pages.identity import NAMED_USER_KEY, find_caller, read_user_header
from ollama_proxy.admin.pages.sessions import PageSessions, SessionStore, read_cookie

__all__ = [
    "ADMIN_PAGES",
    "CSRF_HEADER",
    "NAMED_USER_KEY",
    "PAGE_ROUTES",
    "PAGE_SCOPES",
    "PageSessions",
    "SessionStore",
    "build_pages",
    "check_csrf",
    "check_origin",
    "find_caller",
    "read_cookie",
    "read_user_header",
]
