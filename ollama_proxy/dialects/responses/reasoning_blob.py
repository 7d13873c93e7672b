"""Thinking as the opaque text that clients carry from one request to the next (`encrypted_content`).

Opaque to clients, not secret: it is the client's own conversation, and it has to be readable by any worker.
"""

from __future__ import annotations

import base64
import binascii

#: Tells ours from the blobs of other servers, which would be noise in a prompt.
_MARK = "gw1."


def seal(thinking: str) -> str:
    """The opaque form of a text."""
    return _MARK + base64.urlsafe_b64encode(thinking.encode()).decode()


def unseal(blob: str) -> str | None:
    """What was sealed; None for a blob that another server made."""
    if not blob.startswith(_MARK):
        return None
    try:
        return base64.b64decode(blob.removeprefix(_MARK), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
