"""Log probabilities of tokens, which all dialects that have any show in nearly the same form."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.hub import Json, Logprobs


def render_logprobs(logprobs: Logprobs, *, spells: bool, omits_empty: bool = False) -> list[dict[str, Json]]:
    """One row for each token, with its alternatives in `top_logprobs`. `spells`: bytes that the upstream has not given
    are those of the token, else null. `omits_empty`: empty lists are left out, as Ollama does it."""

    def render(entry: Mapping[str, Json], **more: Json) -> dict[str, Json]:
        token, given = str(entry.get("token") or ""), entry.get("bytes")
        spelled = list(token.encode()) if spells and not given else given
        row = {"token": token, "logprob": entry.get("logprob") or 0.0, "bytes": spelled, **more}
        return {name: value for name, value in row.items() if value != []} if omits_empty else row

    return [render(entry, top_logprobs=[render(top) for top in entry.get("top_logprobs") or ()]) for entry in logprobs]
