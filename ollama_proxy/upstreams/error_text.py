"""The text of a provider's error, without keys and addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Keys in the formats of vendors, whole or with stars in the middle.
_VENDORS_KEYS = re.compile(r"\b(?:sk|gsk|ark|tgp|hf)[-_][A-Za-z0-9_*-]{6,}|\bBearer\s+\S+", re.IGNORECASE)
_ADDRESSES = re.compile(r"https?://[^\s\"'<>)]+")


def without_keys(text: str, secrets: Sequence[str] = ()) -> str:
    """The text of a provider without these secrets, without keys, and without addresses: one of them could be ours."""
    for secret in filter(None, secrets):
        text = text.replace(secret, "...")
    return _ADDRESSES.sub("...", _VENDORS_KEYS.sub("...", text))
