"""The door of managed online endpoints: other numbers than azureml-fe has, and headers of its own.

After "Troubleshoot online endpoints", Azure Machine Learning documentation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..scoring.front import Front
from ..scoring.replicas import Answer

__all__ = ["ManagedDoor"]

_PENDING = 2
"""So many requests for each that is worked on may be on their way: one more is refused at once, none waits outside."""
_CLIENT_ID = "x-ms-client-request-id"


class ManagedDoor(Front):
    """Lets requests in to the instances of a managed deployment; see :class:`Front`.

    It answers 424 where the container answers anything but success, 429 when too much is on its way, and 408 when an
    instance takes too long.
    """

    overloaded = 429
    late = 408
    deployment = ""
    """What answers, for a header."""

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request; returns when it is answered. See :meth:`Front.handle`."""
        begun = time.monotonic()
        status, answered, content = super().handle(method, path, headers, body)
        own = {"azureml-model-deployment": self.deployment}
        if status not in (401, 405, 413, 429):
            own["ms-azureml-model-time"] = f"{(time.monotonic() - begun) * 1000:.0f}"
        sent = {name.lower(): value for name, value in headers.items()}.get(_CLIENT_ID)
        if sent and _CLIENT_ID not in {name.lower() for name in answered}:
            own[_CLIENT_ID] = sent
        return status, {**answered, **own}, content

    def _room(self) -> int:
        return _PENDING * super()._room()

    def _queue_ms(self) -> float:
        return 0.0

    def _passed_on(self, answer: Answer) -> Answer:
        status, headers, content = answer
        if 200 <= status < 300:
            return answer
        told = {"ms-azureml-model-error-statuscode": str(status), "ms-azureml-model-error-reason": "model_error"}
        return 424, {**headers, **told}, content
