"""The `ollama-proxy` commands: check and show the configuration, create tokens, find Ollama servers
that are open to others, start the gateway in the foreground."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ollama_proxy.cli.key_options import KEY_COMMANDS, add_key_arguments
from ollama_proxy.cli.options import (
    add_doctor_options,
    add_exposure_arguments,
    add_import_options,
    add_usage_options,
)
from ollama_proxy.errors import ConfigError
from ollama_proxy.settings import (
    DEMO_URL,
    NAME,
    PRESETS,
    Entry,
    FirstToken,
    Settings,
    config_path,
    effective_upstreams,
    hidden_upstreams,
    load_settings,
    new_token,
    read_last_good,
    show_value,
    shown_path,
    state_directory,
    token_digest,
    variable_name,
    with_first_token,
)
from ollama_proxy.version import VERSION

if TYPE_CHECKING:
    from ollama_proxy.cli.exposure import Probe

EXIT_CONFIG = 2
#: Wrong usage of `doctor`, whose other statuses are 0 to 2 (EX_USAGE of sysexits.h).
EXIT_USAGE = 64
#: Exit statuses of `check-exposure`, besides 2 for invalid arguments: a server is open; none is
#: open, but one could not be checked; the configuration is invalid (EX_CONFIG of sysexits.h).
EXIT_OPEN, EXIT_UNKNOWN, EXIT_UNCHECKED = 1, 3, 78
#: Servers that are asked at once.
MOST_PROBES = 16

#: The directory that holds wsgi.py, config/ and state/ in a checkout.
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 2 for an invalid configuration, or
    one of check-exposure."""
    options = _build_parser().parse_args(arguments)
    environ = dict(os.environ)
    if options.config is not None:
        environ["OLLAMA_PROXY_CONFIG"] = str(options.config)
    try:
        return options.command(options, environ) or 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_UNCHECKED if options.command is check_exposure else EXIT_CONFIG


class _Parser(argparse.ArgumentParser):
    """A parser, also of each command, whose exit status for wrong usage can be chosen."""

    exit_usage = EXIT_CONFIG

    def error(self, message: str) -> NoReturn:
        """See argparse."""
        self.print_usage(sys.stderr)
        self.exit(self.exit_usage, f"{self.prog}: error: {message}\n")


def _build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, default=argparse.SUPPRESS, metavar="PATH", help="configuration file"
    )
    parser = _Parser(
        prog="ollama-proxy", description="One gateway in front of a team's Ollama boxes."
    )
    parser.add_argument(
        "--config", type=Path, default=None, metavar="PATH", help="configuration file"
    )
    parser.add_argument("--version", action="version", version=f"ollama-proxy {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(group: Any, name: str, command: Any, text: str) -> _Parser:
        """Add a command that `main` runs, with the options that all commands have."""
        added: _Parser = group.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(command=command)
        return added

    for name, command, text in (
        ("run", run, "start the gateway in the foreground"),
        ("coordinator", coordinate, "share slots and limits between workers, which start it"),
        ("settings", show_documentation, "print config.yaml with every setting and its meaning"),
    ):
        add(commands, name, command, text)
    exposure = add(
        commands,
        "check-exposure",
        check_exposure,
        "check whether Ollama can be used without the gateway",
    )
    exposure.epilog = (
        f"Exit status: 0 if no server is open, {EXIT_OPEN} if one is, {EXIT_UNKNOWN} if none "
        f"is but one did not answer as an Ollama server, {EXIT_UNCHECKED} if the "
        "configuration is invalid."
    )
    add_exposure_arguments(exposure)
    doctor = add(
        commands,
        "doctor",
        examine,
        "check everything between clients and models, and say how to mend it",
    )
    doctor.exit_usage = EXIT_USAGE
    doctor.epilog = (
        "Exit status: 0 if nothing is wrong, 1 with warnings, 2 with faults, "
        f"{EXIT_USAGE} for wrong usage."
    )
    add_doctor_options(doctor)
    add_usage_options(
        add(commands, "usage", show_usage, "show what was used, by token, model or time")
    )
    add_import_options(
        add(commands, "import", import_tokens, "make tokens of the list of another gateway")
    )
    _add_groups(commands, add)
    return parser


def _add_groups(
    commands: Any, add: Callable[[Any, str, Any, str], argparse.ArgumentParser]
) -> None:
    """The commands that have commands of their own."""
    config = commands.add_parser("config", help="check or show the configuration")
    config_commands = config.add_subparsers(required=True, metavar="COMMAND")
    add(config_commands, "check", check_config, "check the configuration")
    add(config_commands, "show", show_config, "print the settings in effect, with secrets masked")
    token = commands.add_parser("token", help="create tokens, list and withdraw them")
    token_commands = token.add_subparsers(required=True, metavar="COMMAND")
    for name, text in KEY_COMMANDS.items():
        add_key_arguments(add(token_commands, name, manage_keys, text), name)
    for name, command, text in (
        ("new", make_token, "create a token and print it with its line for the configuration"),
        (
            "hash",
            hash_token,
            "read a token from standard input and print its line for the configuration",
        ),
    ):
        added = add(token_commands, name, command, text)
        added.add_argument("--name", default="NAME", help="name of the token in logs and usage")
    admin = commands.add_parser("admin", help="the password of the admin pages")
    admin_commands = admin.add_subparsers(required=True, metavar="COMMAND")
    add(
        admin_commands,
        "password",
        hash_admin_password,
        "read a new password and print its line for the configuration",
    )
    records = commands.add_parser(
        "records", help="check, back up and restore the database of usage and keys"
    )
    records_commands = records.add_subparsers(required=True, metavar="COMMAND")
    for name, text in (
        (
            "upgrade",
            "create its tables, or migrate them to this version; the gateway does so itself",
        ),
        (
            "check",
            "check the database, and compare its sums with its rows; the exit "
            "status is 1 for a problem",
        ),
        ("backup", "write a consistent copy to a file, while the gateway goes on"),
        ("restore", "put a backup in the place of the database, while the gateway is stopped"),
    ):
        added = add(records_commands, name, keep_records, text)
        added.set_defaults(action=name, file=None)
        if name in ("backup", "restore"):
            added.add_argument(
                "file", type=Path, metavar="FILE", help="SQLite file, whatever the database is"
            )


def hash_admin_password(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print the hash of a password. Raises ConfigError."""
    from ollama_proxy.cli.admin import print_password_hash

    print_password_hash()


def import_tokens(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print what becomes of the tokens of a list. Raises ConfigError."""
    from ollama_proxy.cli.import_tokens import import_file

    import_file(options, environ)


def manage_keys(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Run one of KEY_COMMANDS. Raises ConfigError."""
    from ollama_proxy.cli.keys import Keys

    getattr(Keys(options, environ), options.action)()


def coordinate(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Run the coordinator until no worker needs it any more; end at once if there is
    one. Raises ConfigError."""
    from gevent import monkey

    try:
        settings = load_settings(environ=environ)
    except ConfigError:  # with which the workers go on
        settings = read_last_good(environ) or load_settings(environ=environ)
    if settings.state.url is not None:
        monkey.patch_all()  # only the client of Redis waits in another way than gevent's own
    from ollama_proxy.coordination import make_records_frame, run_coordinator
    from ollama_proxy.records import service

    directory = state_directory(settings, environ)
    records = service.RecordsService(directory, make_records_frame(settings.records))
    run_coordinator(
        directory, settings.state.url, records=records, timezone=settings.records.timezone
    )


def keep_records(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Upgrade, check, back up or restore the records; returns the exit
    status. Raises ConfigError."""
    from ollama_proxy.cli.records import run_action

    return run_action(options.action, options.file, environ)


def examine(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print what is wrong and how to mend it; returns the exit status."""
    from ollama_proxy.cli.doctor import Doctor

    token = sys.stdin.readline().strip() if options.token == "-" else options.token
    return Doctor(environ, options.url or "", token, options.silence, options.json).run()


def show_usage(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print what was used. Raises ConfigError."""
    from ollama_proxy.cli.usage import print_usage

    print_usage(options, environ)


def check_config(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print OK and the warnings, also about the servers that answer. Raises ConfigError."""
    from ollama_proxy.server import check_tracing, settings_warnings

    settings = load_settings(environ=environ)
    hidden = check_fleet(settings, environ)
    check_tracing(settings)
    print(f"OK: {_describe_source(settings, environ)}")
    for warning in (*settings_warnings(settings, environ), *hidden, *check_versions(settings)):
        print(f"warning: {warning}")


def check_versions(settings: Settings) -> list[str]:
    """A warning for each known fault of an Ollama server that answers. All are asked at once."""
    from concurrent.futures import ThreadPoolExecutor

    from ollama_proxy.cli.exposure import probe_ollama

    servers = [each for each in effective_upstreams(settings) if each.protocol == "ollama"]
    with ThreadPoolExecutor(MOST_PROBES) as pool:
        probes = pool.map(probe_ollama, [each.base_url for each in servers])
        answering = [
            (server, probe.version)
            for server, probe in zip(servers, probes, strict=True)
            if probe.version
        ]
    if not answering:
        return []
    from ollama_proxy.upstreams import UPGRADE, list_faults

    return [
        f"{server.name} ({server.base_url}): {fault}; {UPGRADE}"
        for server, version in answering
        for fault in list_faults(version)
    ]


def check_fleet(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """A warning for each upstream that is hidden because its key is missing. Raises ConfigError for
    an upstream that this installation does not support."""
    if any(PRESETS[each.kind].is_checked_by_building for each in effective_upstreams(settings)):
        from ollama_proxy.upstreams import build_fleet

        build_fleet(settings, environ).close()
    return [
        f"the upstream {name} is hidden: {why}"
        for name, why in hidden_upstreams(settings, environ).items()
    ]


def check_exposure(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print whether others can use the servers; returns the exit status. Raises ConfigError."""
    from ollama_proxy.cli.exposure import check_servers, check_upstreams

    found = (
        check_servers(options.urls)
        if options.urls
        else check_upstreams(load_settings(environ=environ))
    )
    is_open = is_unknown = False
    for finding in found:
        print(finding.text, flush=True)
        is_open, is_unknown = is_open or finding.is_open, is_unknown or finding.is_unknown
    return EXIT_OPEN if is_open else EXIT_UNKNOWN if is_unknown else 0


def _describe_source(settings: Settings, environ: Mapping[str, str]) -> str:
    if settings.source is None:
        return f"there is no {config_path(environ)}; the defaults and the environment apply"
    return shown_path(settings.source)


def show_config(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print the settings in effect as YAML, then the origin of each that was set."""
    import yaml

    settings = load_settings(environ=environ)
    print(f"# {_describe_source(settings, environ)}")
    print(yaml.safe_dump(show_value(settings), sort_keys=False, allow_unicode=True), end="")
    for name, origin in settings.origins.items():
        print(f"# {name}: {origin}")


def make_token(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print a new token, and its mapping for the configuration."""
    token = new_token()
    print(
        f"token: {token}\nfor auth.generate_tokens (this line is no secret; the token "
        "itself is not stored):"
    )
    print(_render_token(options.name, token))


def hash_token(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print the mapping of a token from standard input: arguments are visible to all
    users of the machine."""
    import getpass

    token = (getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ConfigError("a token must be one line of visible ASCII characters without spaces")
    print(_render_token(options.name, token))


def _render_token(name: str, token: str) -> str:
    checked = NAME.parse(Entry("--name", "the name", "str", name))
    return f'    - {{name: "{checked}", sha256: "{token_digest(token).hex()}"}}'


def show_documentation(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Print the commented config.yaml, the same as config/config.yaml in the repository."""
    from ollama_proxy.cli.documentation import documentation

    print(documentation(), end="")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Replace this process by gunicorn; if Ollama does not answer, with the demo model."""
    from ollama_proxy.cli.exposure import probe_ollama
    from ollama_proxy.server import settings_warnings

    chosen = environ.get("OLLAMA_PROXY_CONFIG") or (
        str(config_path({})) if config_path({}).exists() else ""
    )
    environ = dict(environ)
    if chosen:
        environ["OLLAMA_PROXY_CONFIG"] = str(Path(chosen).absolute())
    if not (ROOT / "wsgi.py").is_file():
        raise ConfigError(f"{ROOT}: there is no wsgi.py here; `run` works only in a checkout")
    # gunicorn runs in the same directory, so relative paths mean the same for both.
    os.chdir(ROOT)
    loaded = load_settings(environ=environ)
    hidden = check_fleet(loaded, environ)
    settings, first = with_first_token(loaded, environ)
    probe: Probe | None = None
    upstream = effective_upstreams(settings)[0]
    if not settings.upstreams and upstream.kind == "ollama":
        probe = probe_ollama(upstream.base_url)
    if probe and probe.refusal:
        environ["OLLAMA_BASE_URL"] = DEMO_URL
        environ.pop(variable_name("service.base_url"), None)
    for warning in (*check_address(settings), *settings_warnings(settings, environ), *hidden):
        print(f"warning: {warning}")
    for line in banner(settings, first, probe):
        print(line)
    sys.stdout.flush()
    conf = str(ROOT / "config" / "gunicorn.conf.py")
    command = [sys.executable, "-m", "gunicorn", "-c", conf, "--chdir", str(ROOT), "wsgi:app"]
    os.execvpe(sys.executable, command, environ)


def check_address(settings: Settings) -> list[str]:
    """A warning if another program has the port. gunicorn tries it again for five
    seconds before it ends."""
    import errno
    import socket

    host, port = settings.server.host, settings.server.port
    try:
        socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = os.strerror(error.errno)  # the error's own text repeats the address
            return [f"{host}:{port}: {why}; stop the other program, or set another PORT"]
    return []


def banner(settings: Settings, first: FirstToken | None, probe: Probe | None) -> list[str]:
    """The lines that `run` prints at the start: addresses, upstreams, token, and an example."""
    addresses, upstreams = _find_addresses(settings), effective_upstreams(settings)
    lines = [f"ollama-proxy {VERSION} on {'  '.join(addresses)}"]
    if probe and probe.refusal:
        lines.append(
            "DEMO: the built-in demo model answers instead of "
            f"{upstreams[0].base_url}: {probe.refusal}"
        )
    elif probe:
        lines.append(f"Ollama at {upstreams[0].base_url}")
    elif [each.kind for each in upstreams] == ["demo"]:
        lines.append("DEMO: the built-in demo model answers, as configured")
    else:
        lines.append(
            "Upstreams: " + ", ".join(f"{each.name} ({each.base_url})" for each in upstreams)
        )
    if settings.admin.enabled:
        lines.append(f"Pages for operators and members: {addresses[0]}/admin")
    if not settings.auth.enabled:
        lines.append(
            "No token is required (auth.enabled: false), so other web pages and "
            "host names are refused"
        )
    elif settings.auth.refuses_all:
        lines.append("Tokens: none. Every call is refused, because the list of tokens is empty")
    elif first is None:
        lines.append("Tokens: as configured")
    elif first.created:
        lines += [f"Token, shown only this once and stored in {first.path}:", f"  {first.text}"]
    else:
        lines.append(f"Token: stored in {first.path}")
    return [*lines, "Try it:", f"  {_render_curl(settings, first, probe, addresses[0])}"]


def _find_addresses(settings: Settings) -> list[str]:
    host, port = settings.server.host, settings.server.port
    if host not in ("0.0.0.0", "::"):
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"]
    from ollama_proxy.cli.exposure import FAR_AWAY, find_source

    # The address at which others reach this machine, if it has a route to the internet.
    own = find_source(FAR_AWAY[0])
    return [f"http://{each}:{port}" for each in ("localhost", own) if each]


def _render_curl(
    settings: Settings, first: FirstToken | None, probe: Probe | None, address: str
) -> str:
    import json

    is_demo = (probe and probe.refusal) or {
        each.kind for each in effective_upstreams(settings)
    } == {"demo"}
    model = "demo" if is_demo else probe.model if probe else ""
    header = ""
    if settings.auth.enabled:
        token = "$TOKEN"  # the configuration may have only its digest
        if first is not None:
            token = first.text if first.created else f"$(cat {shlex.quote(str(first.path))})"
        header = f'-H "Authorization: Bearer {token}" '
    if not model:
        return f"curl {header}{address}/v1/models"
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    data = shlex.quote(json.dumps(body))
    return (
        f"curl {header}-H 'Content-Type: application/json' {address}/v1/chat/completions -d {data}"
    )
