"""Models as the team sees them: the names that clients use, what they stand for, and which of them are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ollama_proxy.policy.names import canonical, compiled, is_allowed
from ollama_proxy.settings import ModelSettings

NO_RULES = ModelSettings()


@dataclass(slots=True, frozen=True)
class TeamModel:
    """A model under the name that a client used, and the operator's word on it."""

    name: str
    #: What its upstream calls it; the name itself where nothing else was said.
    target: str
    rules: ModelSettings

    @property
    def is_alias(self) -> bool:
        """Whether the upstream knows it by another name."""
        return self.target != self.name

    @property
    def is_plain(self) -> bool:
        """Whether nothing was said of it."""
        return self.rules is NO_RULES


R = TypeVar("R")


class Catalogue:
    """The `models` of the settings, ready to be asked."""

    def __init__(self, models: Mapping[str, ModelSettings], upstreams: Iterable[str]) -> None:
        """`upstreams`: their names, which may stand in front of a target."""
        prefixes = tuple(f"{name}{mark}" for name in upstreams for mark in (":", "/"))
        self._patterns = [name for name in models if is_pattern(name)]
        self._covering = compiled(self._patterns)
        self._rules = {_key(name): rules for name, rules in models.items()}
        self._targets = {
            key: _without_upstream(rules.target, prefixes) for key, rules in self._rules.items() if rules.target
        }
        #: By the name as written: what it stands for. A pattern is no name that could be shown.
        self._aliases = {
            name: canonical(self._targets[_key(name)])
            for name in models
            if _key(name) in self._targets and not is_pattern(name)
        }

    def __bool__(self) -> bool:
        """Whether the operator said anything about models."""
        return bool(self._rules)

    def find(self, name: str) -> TeamModel:
        """The model that a client means, however it spells the name."""
        if not self._rules:
            return TeamModel(name, name, NO_RULES)
        known = self._known(name)
        return TeamModel(name, self._targets.get(known, name), self._rules.get(known, NO_RULES))

    def _known(self, name: str) -> str:
        """The key of the rules for a name: its own, or the first pattern that covers it. Ollama takes `:local` behind
        the name of any model that is not in its cloud."""
        known = canonical(name)
        if known in self._rules:
            return known
        if known.endswith(":local") and (plain := canonical(known.removesuffix(":local"))) in self._rules:
            return plain
        covered = self._covering.match(known) if self._patterns else None
        return self._patterns[(covered.lastindex or 1) - 1] if covered else known

    def names(self, name: str) -> bool:
        """Whether the operator wrote down this very model, or what it stands for. A pattern names its target, not what
        it covers."""
        known = self._known(name)
        return known in self._targets or (known in self._rules and not is_pattern(known))

    def chained(self) -> list[str]:
        """Names whose target is another of these names; nobody follows it from there."""
        return [name for name, target in self._aliases.items() if target in self._targets and target != canonical(name)]

    def is_allowed(self, name: str, patterns: Sequence[str]) -> bool:
        """Whether a token with these patterns (none: every model) may use a name: they cover it, or what it stands
        for."""
        return not patterns or is_allowed(name, patterns) or is_allowed(self.find(name).target, patterns)

    def listed(
        self,
        rows: Iterable[R],
        patterns: Sequence[str],
        name_of: Callable[[R], str],
        renamed: Callable[[R, str], R],
    ) -> list[R]:
        """An upstream's list as a token with these patterns sees it: with the team's names, without what is hidden."""
        found: list[R] = []
        for row in rows:
            known = canonical(name_of(row))
            names = [] if self._known(name_of(row)) in self._targets else [name_of(row)]
            names += [alias for alias, target in self._aliases.items() if target == known]
            shown = (name for name in names if self._is_shown(name, patterns))
            found += [row if name == name_of(row) else renamed(row, name) for name in shown]
        return found

    def _is_shown(self, name: str, patterns: Sequence[str]) -> bool:
        return not self.find(name).rules.hidden and self.is_allowed(name, patterns)


def is_pattern(name: str) -> bool:
    """Whether a name of the settings stands for all that it covers."""
    return "*" in name or "?" in name


def _key(name: str) -> str:
    return name if is_pattern(name) else canonical(name)


def _without_upstream(target: str, prefixes: tuple[str, ...]) -> str:
    prefix = next((each for each in prefixes if target.startswith(each)), "")
    return target.removeprefix(prefix)
