"""`ollama-proxy import`: makes keys of the tokens of another gateway, or shows
which ones it would make."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence

from ollama_proxy.cli.open_records import find_actor, open_records
from ollama_proxy.cli.terminal import show_text
from ollama_proxy.records import database, foreign_tokens, token_import
from ollama_proxy.settings import load_settings, with_first_token


def import_file(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print what becomes of each token of the file; nothing is changed without
    `--apply`. Raises ConfigError."""
    settings, _ = with_first_token(load_settings(environ=environ), environ)
    found = foreign_tokens.read_tokens(options.file, options.format)
    in_file = {token.digest.hex(): token.name for token in settings.auth.tokens()}
    with open_records(settings, environ) as engine, database.write(engine) as connection:
        results = token_import.import_tokens(
            connection,
            found,
            in_file=in_file,
            actor=find_actor(),
            enable_restricted=options.enable_restricted,
        )
        lines = render_results(list(results), is_applied=options.apply)
        if not options.apply:
            connection.rollback()
    print("\n".join(lines))


def render_results(results: Sequence[token_import.ImportResult], *, is_applied: bool) -> list[str]:
    """A line for each token of a list, others for what is carried over and what
    is not, and a summary."""
    lines, counts = list[str](), Counter[str]()
    for result in results:
        source = result.source
        what = "skipped" if result.skipped else "disabled" if result.is_disabled else "created"
        counts[what] += 1
        token = f" ({source.prefix}...)" if source.prefix else ""
        lines.append(f"{what:8}  {source.place}: {source.name or result.name}{token}")
        lines += [f"          {remark}" for remark in _list_remarks(result)]
    summary = ", ".join(f"{counts[what]} {what}" for what in ("created", "disabled", "skipped"))
    lines.append(summary if is_applied else f"{summary}; nothing was changed, --apply does it")
    return [show_text(line) for line in lines]


def _list_remarks(result: token_import.ImportResult) -> list[str]:
    """Why a token was skipped, or what its key has and lacks."""
    source = result.source
    if result.skipped:
        return [result.skipped]
    limits = source.fields.get("limits", {})
    remarks = {
        "as ": "" if result.name == source.name else result.name,
        "valid until ": source.fields.get("expires", ""),
        "models ": ", ".join(source.fields.get("models", [])),
        "limits ": ", ".join(f"{name} {limit:g}" for name, limit in limits.items()),
        "the gateway has no such restriction: ": ", ".join(source.restrictions),
        "not carried over: ": ", ".join(source.others),
    }
    return [lead + text for lead, text in remarks.items() if text]
