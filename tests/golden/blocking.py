"""An asynchronous client used like its synchronous twin, so that one test speaks for both."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any


class Blocking:
    """Every call runs to its end in one event loop; what can only be iterated over
    asynchronously becomes a list."""

    def __init__(self, client: Any, runner: asyncio.Runner | None = None) -> None:
        self._client = client
        self._runner = runner or asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        return value if isinstance(value, str) else Blocking(value, self._runner)

    def __call__(self, *args: Any, **options: Any) -> Any:
        async def run() -> Any:
            value = self._client(*args, **options)
            if inspect.isawaitable(value):
                value = await value
            if hasattr(value, "__aiter__"):
                return [item async for item in value]
            return value

        return self._runner.run(run())

    def shut(self) -> None:
        """Closes the client and its loop."""
        self.close()
        self._runner.close()
