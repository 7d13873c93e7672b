"""Log probabilities of tokens, which have nearly the same form in all dialects that have them."""

from __future__ import annotations

from collections.abc import Mapping

from ollama_proxy.hub import Json, Logprobs


def render_logprobs(logprobs: Logprobs, *, spells: bool, omits_empty: bool = False) -> list[dict[str, Json]]:
    """Return one row per token, with its alternatives in `top_logprobs`. `spells`: if the upstream sent no bytes, those
    of the token are shown instead of null. `omits_empty`: empty arrays are omitted, as by Ollama."""

    def render(entry: Mapping[str, Json], **more: Json) -> dict[str, Json]:
        token, given = str(entry.get("token") or ""), entry.get("bytes")
        spelled = list(token.encode()) if spells and not given else given
        row = {"token": token, "logprob": entry.get("logprob") or 0.0, "bytes": spelled, **more}
        return {name: value for name, value in row.items() if value != []} if omits_empty else row

    return [render(entry, top_logprobs=[render(top) for top in entry.get("top_logprobs") or ()]) for entry in logprobs]
