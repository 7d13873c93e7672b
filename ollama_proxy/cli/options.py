"""The arguments of the larger commands. They stand apart from the modules that do the work, which
are imported only by the command that needs them."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings import BASE_URL, Entry

#: Where Ollama listens, if an address has no port.
OLLAMA_PORT = 11434


def add_usage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `usage`."""
    fields = "token, user, model, upstream, dialect, hour, day, month"
    parser.add_argument(
        "--by", default="token", metavar="FIELDS", help=f"rows for each {fields}; default: token"
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        help="first day or month, such as 2026-11-23 or 2026-11",
    )
    parser.add_argument(
        "--to", dest="end", metavar="TIME", help="last day or month; default: this month until now"
    )
    for name in ("token", "user", "model", "upstream"):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    parser.add_argument(
        "--sort",
        metavar="FIELD",
        help="order of the rows, such as cost; --sort=-cost: largest first",
    )
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
        "LiteLLM_VerificationToken (JSON or CSV), or a list with one token per line, with a "
        "name and a tab before it",
    )
    parser.add_argument("--format", choices=("auto", "one-api", "litellm", "list"), default="auto")
    parser.add_argument(
        "--apply", action="store_true", help="make the tokens; without it, they are only listed"
    )
    parser.add_argument(
        "--enable-restricted",
        action="store_true",
        help="accept tokens at once even if they had restrictions that the gateway does not have",
    )


def add_exposure_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check-exposure`."""
    parser.add_argument(
        "urls",
        nargs="*",
        type=parse_server,
        metavar="URL",
        help="servers to check from this machine; default: those of the configuration",
    )


def add_doctor_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `doctor`."""
    parser.add_argument(
        "--url", type=_parse_url, help="address that clients use; default: the gateway's own"
    )
    parser.add_argument(
        "--token",
        default="",
        help="token to try; - reads it from standard input, so that no list of processes shows it",
    )
    parser.add_argument(
        "--silence",
        type=_parse_silence,
        default=20.0,
        metavar="SECONDS",
        help="longest silence to try; default: 20",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def parse_server(text: str) -> str:
    """The address of a server as people write it: a URL, or a host with or without its port.
    Raises ArgumentTypeError."""
    url = text if "://" in text else f"http://{text}"
    try:
        url += "" if url == text or urlsplit(url).port else f":{OLLAMA_PORT}"
        return BASE_URL.parse(Entry(text, "the address", "str", url))
    except (ConfigError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse_url(text: str) -> str:
    try:
        return BASE_URL.parse(Entry("--url", "the address", "str", text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parse_silence(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 120:
        raise argparse.ArgumentTypeError("must be from 0 to 120 seconds")
    return seconds
