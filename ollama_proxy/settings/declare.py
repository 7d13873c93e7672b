"""Settings are declared as fields of frozen dataclasses, which get their values from the
file and the environment.

An unknown name is refused with a suggestion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, field, fields
from typing import Any, TypeVar

from ollama_proxy.errors import ConfigError
from ollama_proxy.settings.types import BOOLEAN, SettingType, check_kind, suggestion
from ollama_proxy.settings.yaml_file import Complaints, Entry, parse_value

#: Start of the environment variables that can give any setting.
PREFIX = "OLLAMA_PROXY__"
#: Start of the errors about a variable instead of a line.
VARIABLE_WORDS = "environment variable "

#: Settings by their former names, which are read until 1.0, with a warning.
RENAMED = {"auth.max_failures": "auth.max_failed_logins", "server.body_s": "server.body_timeout_s"}

T = TypeVar("T")


def setting(
    default: T, text: str, kind: SettingType[Any], *, env: tuple[str, ...] = (), alias: str = ""
) -> T:
    """Declare one setting. `env`: its own variables, later ones win; `alias`: a second name."""
    details = {"text": text, "kind": kind, "env": env, "alias": alias}
    if default == {}:
        return field(default_factory=dict, metadata=details)  # type: ignore[return-value]
    return field(default=default, metadata=details)


def section(section: type[T], kind: SettingType[T] | None = None) -> T:
    """Declare a section of settings, which have their defaults if the file omits it."""
    text = " ".join((section.__doc__ or "").split())
    details = {"text": text, "kind": kind or section_type(section), "section": section}
    return field(default_factory=section, metadata=details)


def section_type(section: Callable[..., T]) -> SettingType[T]:
    """The type of a mapping with the settings of a section."""
    return SettingType(
        "a mapping of settings", lambda entry: section(**read_section(section, entry))
    )


def read_section(section: Any, entry: Entry, everything: Iterable[str] = ()) -> dict[str, Any]:
    """The values of the settings that the entry sets. Raises ConfigError with all errors.

    `everything`: dotted names to suggest from, for the file as a whole.
    """
    check_kind(entry, "a mapping of settings", "map")
    known: dict[str, Field[Any]] = {
        each.name: each for each in fields(section) if "kind" in each.metadata
    }
    known |= {each.metadata["alias"]: each for each in known.values() if each.metadata.get("alias")}
    complaints, values = Complaints(), {}
    for name, child in entry.entries.items():
        with complaints.collected():
            if name not in known:
                raise _unknown(entry, child, list(known), everything)
            declared = known[name]
            if declared.name in values:
                raise child.error(f"is an alias of {declared.name}, which is set too")
            values[declared.name] = declared.metadata["kind"].parse(child)
    complaints.check()
    return values


def rename_entries(root: Entry) -> None:
    """Move entries with an old name to the new one. Raises ConfigError if both are set."""
    complaints = Complaints()
    for old, new in RENAMED.items():
        section, key, new_key = (*old.split("."), new.rpartition(".")[2])
        entries = root.entries[section].entries if section in root.entries else {}
        if key in entries:
            with complaints.collected():
                entry = entries.pop(key)
                if new_key in entries:
                    raise entry.error(f"is the old name of {new}, which is set too")
                entries[new_key] = entry
    complaints.check()


def _unknown(
    parent: Entry, child: Entry, known: list[str], everything: Iterable[str]
) -> ConfigError:
    if parent.name.startswith("auth"):
        # The name may be a misplaced token, so it isn't quoted.
        key = child.name.removeprefix(f"{parent.name}.")
        return ConfigError(
            f"{child.where}: unknown setting in {parent.name}{suggestion(key, known)}"
        )
    if parent.name:
        return _no_such(child, [f"{parent.name}.{name}" for name in known])
    names = list(everything)
    last_parts = {name.rpartition(".")[2] for name in names}
    inner = [each for key, each in child.entries.items() if key in last_parts]
    if inner:
        return ConfigError([line for each in inner for line in _no_such(each, names).complaints])
    return _no_such(child, [*known, *names])


def _no_such(entry: Entry, candidates: list[str]) -> ConfigError:
    return ConfigError(
        f'{entry.where}: unknown setting "{entry.name}"{suggestion(entry.name, candidates)}'
    )


def default_of(section: Any, name: str) -> Any:
    """The default of one setting of a section."""
    declared: Field[Any] = section.__dataclass_fields__[name]
    return declared.default_factory() if callable(declared.default_factory) else declared.default


def apply_environment(
    root: Entry, environ: Mapping[str, str], names: Mapping[str, Field[Any]]
) -> None:
    """Override the file with the environment. An empty variable counts as not set.

    `names`: dotted names with their declarations. Raises ConfigError for
    unknown names and invalid YAML.
    """
    complaints = Complaints()
    for name, declared in names.items():
        for variable in declared.metadata.get("env", ()):
            if text := environ.get(variable, ""):
                where, kind = VARIABLE_WORDS + variable, declared.metadata["kind"]
                if kind is BOOLEAN:
                    text = {"1": "true", "0": "false"}.get(text, text)
                with complaints.collected():
                    _put(
                        root,
                        name,
                        Entry(where, name, "str", text)
                        if kind.raw
                        else parse_value(text, where, name),
                    )
    for variable, text in sorted(environ.items()):
        if variable.startswith(PREFIX) and text:
            with complaints.collected():
                name, where = (
                    variable.removeprefix(PREFIX).lower().replace("__", "."),
                    VARIABLE_WORDS + variable,
                )
                if RENAMED.get(name, name) not in names:
                    raise ConfigError(f'{where}: unknown setting "{name}"{suggestion(name, names)}')
                _put(root, RENAMED.get(name, name), parse_value(text, where, name))
    complaints.check()


def _put(root: Entry, name: str, entry: Entry) -> None:
    parent = root
    *sections, key = name.split(".")
    for section in sections:
        parent = parent.entries.setdefault(section, Entry(entry.where, section, "map"))
    parent.entries[key] = entry
