"""The operator's names for models: their targets and rules, and which of them are listed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ollama_proxy.policy.model_names import DEFAULT_TAG, compiled, split_upstream, with_source
from ollama_proxy.settings import ModelSettings

NO_RULES = ModelSettings()


@dataclass(slots=True, frozen=True)
class ModelAlias:
    """A model under the name that a client used, and the operator's rules for it."""

    name: str
    #: The upstream's name of the model; the client's name unless the operator
    #: configured another one.
    target: str
    rules: ModelSettings
    #: The operator gave it this name; otherwise the name only leads to it.
    is_named: bool = False

    @property
    def is_alias(self) -> bool:
        """Whether the upstream has another name for it."""
        return self.target != self.name


R = TypeVar("R")

OneName = Callable[[str], str]


class ModelAliases:
    """The `models` of the settings, prepared for lookups."""

    def __init__(
        self,
        models: Mapping[str, ModelSettings],
        upstreams: Iterable[str],
        one_name: OneName | None = None,
    ) -> None:
        """`upstreams`: their names, which may precede a model's. `one_name`: maps several names of
        one model to a single one, if an upstream has such names."""
        self._one_name = one_name
        self._upstreams = tuple(name.lower() for name in upstreams)
        self._rules = {self._key(name): rules for name, rules in models.items()}
        self._targets = {key: rules.target for key, rules in self._rules.items() if rules.target}
        #: Names as written, and their targets; without patterns, which can't be listed.
        self._aliases = {
            name: rules.target
            for name, rules in models.items()
            if rules.target and not is_pattern(name)
        }
        self._patterns = [name for name in self._rules if is_pattern(name)]
        self._covering = compiled(self._patterns)
        self._ruling = [name for name in self._patterns if name not in self._targets]
        self._covering_bare = compiled(self._ruling)
        #: By the canonical name of each model that has rules: the key of these rules.
        self._synonyms = (
            {self._meant(key): key for key in self._rules if not is_pattern(key)}
            if one_name
            else {}
        )

    def __bool__(self) -> bool:
        """Whether the operator configured any models."""
        return bool(self._rules)

    def find(self, name: str) -> ModelAlias:
        """Returns the model that a client means by any spelling of its name."""
        if not self._rules:
            return ModelAlias(name, name, NO_RULES)
        known = self._known(name)
        return ModelAlias(
            name,
            self._targets.get(known, name),
            self._rules.get(known, NO_RULES),
            known in self._targets,
        )

    def _key(self, name: str) -> str:
        """Returns the canonical spelling of a name, or of a pattern, with its upstream."""
        upstream, rest = split_upstream(name, self._upstreams)
        rest = rest if is_pattern(rest) else with_source(rest)
        return f"{upstream}/{rest}" if upstream else rest

    def _known(self, name: str) -> str:
        """Returns the key of the rules for a name: its own, that of the model without its upstream,
        or the first pattern that covers one of these. A target applies to that very name only."""
        full, bare = self._key(name), with_source(split_upstream(name, self._upstreams)[1])
        for key in (full, _without_local(full)):
            if key in self._rules:
                return key
        for key in (bare, _without_local(bare), self._synonyms.get(self._meant(bare), "")):
            if key in self._rules and key not in self._targets:
                return key
        found = self._pattern(full, bare)
        if found is None and self._one_name:
            found = self._pattern(full, self._meant(bare))
        return found or full

    def _meant(self, bare: str) -> str:
        """Returns the single name that a canonical one means."""
        return (
            with_source(self._one_name(bare.removesuffix(f":{DEFAULT_TAG}")))
            if self._one_name
            else bare
        )

    def _pattern(self, full: str, bare: str) -> str | None:
        if not self._patterns:
            return None
        found: list[str] = []
        if covered := self._covering.match(full):
            found.append(self._patterns[(covered.lastindex or 1) - 1])
        if bare != full and (covered := self._covering_bare.match(bare)):
            found.append(self._ruling[(covered.lastindex or 1) - 1])
        return min(found, key=self._patterns.index, default=None)

    def names(self, name: str) -> bool:
        """Whether the operator configured this very model, or a target for it. A pattern names its
        target, not the models that it covers."""
        known = self._known(name)
        return known in self._targets or (known in self._rules and not is_pattern(known))

    def is_alias(self, name: str) -> bool:
        """Whether the operator configured a target for this very name."""
        return self._key(name) in self._targets and name == name.strip()

    def chained(self) -> list[str]:
        """Returns names whose target is another of these names; such a chain is not followed."""
        ends = {
            name: with_source(split_upstream(target, self._upstreams)[1])
            for name, target in self._aliases.items()
        }
        return [
            name for name, end in ends.items() if end in self._targets and end != with_source(name)
        ]

    def listed(
        self,
        rows: Iterable[R],
        name_of: Callable[[R], str],
        renamed: Callable[[R, str], R],
        *,
        identity: Callable[[str], str],
        may_use: Callable[[str], bool],
    ) -> list[R]:
        """Returns a list of models for clients: with the operator's names, without models
        that are hidden or may not be used. `identity` returns the one name that all
        spellings of a model mean."""
        aliases = [(alias, identity(target)) for alias, target in self._aliases.items()]
        found: list[R] = []
        for row in rows:
            known = identity(name_of(row))
            names = [] if self._known(name_of(row)) in self._targets else [name_of(row)]
            names += [alias for alias, target in aliases if target == known]
            shown = (name for name in names if not self.find(name).rules.hidden and may_use(name))
            found += [row if name == name_of(row) else renamed(row, name) for name in shown]
        return found


def is_pattern(name: str) -> bool:
    """Whether a name of the settings is a pattern."""
    return "*" in name or "?" in name


def _without_local(known: str) -> str:
    """Removes `:local`, which Ollama accepts after the name of any model
    that is not in its cloud."""
    return with_source(known.removesuffix(":local")) if known.endswith(":local") else known
