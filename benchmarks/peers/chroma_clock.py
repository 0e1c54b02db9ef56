"""How long a flow waits for Chroma: most of what LlamaIndex's and LangChain's flows take is their store's."""

import time
from typing import Any

from chromadb.api.models.Collection import Collection

_METHODS = ("add", "upsert", "delete", "get")


class ChromaClock:
    """From its making on, adds up the seconds spent in writing to and reading from Chroma."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in _METHODS:
            setattr(Collection, name, self._timed(getattr(Collection, name)))

    def _timed(self, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return call
