"""Encode thinking as the opaque text that clients send back with the next request (`encrypted_content`).

It is opaque to clients but not secret: it is their own conversation, and every worker must be able to read it.
"""

from __future__ import annotations

import base64
import binascii

#: Marks our own blobs; those of other servers would be noise in a prompt.
_MARK = "gw1."


def seal(thinking: str) -> str:
    """Return the opaque form of a text."""
    return _MARK + base64.urlsafe_b64encode(thinking.encode()).decode()


def unseal(blob: str) -> str | None:
    """Return the text of a sealed blob; None for a blob of another server."""
    if not blob.startswith(_MARK):
        return None
    try:
        return base64.b64decode(blob.removeprefix(_MARK), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
