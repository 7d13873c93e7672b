"""The options of commands for reports and imports. They are read before it is known whether a database is needed."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_usage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `usage`."""
    fields = "token, user, model, upstream, dialect, hour, day, month"
    parser.add_argument("--by", default="token", metavar="FIELDS", help=f"rows for each {fields}; default: token")
    parser.add_argument(
        "--from", dest="start", metavar="TIME", help="first day or month, such as 2026-11-23 or 2026-11"
    )
    parser.add_argument("--to", dest="end", metavar="TIME", help="last day or month; default: this month until now")
    for name in ("token", "user", "model", "upstream"):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    parser.add_argument("--sort", metavar="FIELD", help="order of the rows, such as cost; --sort=-cost: largest first")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON")


def add_import_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `import`."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="database of one-api or new-api (SQLite), export of "
        "LiteLLM_VerificationToken (JSON or CSV), or a list with one token per line, with a name and a tab before it",
    )
    parser.add_argument("--format", choices=("auto", "one-api", "litellm", "list"), default="auto")
    parser.add_argument("--apply", action="store_true", help="make the tokens; without it, they are only listed")
    parser.add_argument(
        "--enable-restricted",
        action="store_true",
        help="accept tokens at once even if they had restrictions that the gateway does not have",
    )
