"""The gateway on a machine whose name server takes its time: names that end with `.slow.test` take
8 s, and `quick.test` is 127.0.0.1 at once. Start it with ``Gateway(config,
app="tests.rig.slow_names_app:app")``.
"""

from __future__ import annotations

import socket
from typing import Any

from gevent import monkey

from ollama_proxy.server.startup import serve

SLOW, QUICK = ".slow.test", "quick.test"
SLOW_S = 8.0

_sleep = monkey.get_original("time", "sleep")
_getaddrinfo = monkey.get_original("socket", "getaddrinfo")


def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
    """The C library's, but for these names. It runs in a thread, as the real one does."""
    if host == QUICK:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    if host.endswith(SLOW):
        _sleep(SLOW_S)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _getaddrinfo(host, port, *args, **kwargs)


monkey.saved["socket"]["getaddrinfo"] = getaddrinfo
app = serve()
