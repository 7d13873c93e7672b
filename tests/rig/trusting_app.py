"""The gateway on a machine whose system trusts one authority more, the one in the
file `TRUSTED_AUTHORITY`.

Start it with ``Gateway(config, app="tests.rig.trusting_app:app",
env={"TRUSTED_AUTHORITY": path})``.
"""

from __future__ import annotations

import os
import ssl

_system = ssl.get_default_verify_paths()


def _paths() -> ssl.DefaultVerifyPaths:
    return _system._replace(
        openssl_cafile=os.environ["TRUSTED_AUTHORITY"], openssl_capath="/nowhere"
    )


ssl.get_default_verify_paths = _paths

from ollama_proxy.server.process_state import PROCESS  # noqa: E402

PROCESS.app = None  # the master built it with what its own system trusts

from wsgi import app  # noqa: E402  # it reads what is trusted as it starts

__all__ = ["app"]
