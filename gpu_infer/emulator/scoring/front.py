"""The door of an emulated service, as azureml-fe is on AKS: keys and tokens, concurrency, queue, time-outs.

What it answers by itself is plain text, in the words that users report of azureml-fe (Azure/MachineLearningNotebooks
issues 450, 647 and 1004, MicrosoftDocs/azure-docs issue 98265).
"""

from __future__ import annotations

import hmac
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from gpu_infer.emulator.aad import models as aad
from gpu_infer.emulator.scoring.replicas import Answer, NoReplicaError, Replicas

__all__ = ["Auth", "Front"]

Auth = Literal["key", "token", "aad", "none"]
"""``token``: one of those that the service has handed out; ``aad``: any of the directory's, which others hand out."""

MAX_BODY = 100 * 1024 * 1024
"""Bytes of a request that azureml-fe takes ("Inference router", Azure Machine Learning documentation)."""


class Front:
    """Lets requests in to the replicas of one service.

    All arguments are attributes, which may be set anew while requests come in.

    Args:
        replicas: of the service.
        keys: those that open it, both of them.
        tokens: access tokens and when each expires, in seconds since the epoch.
        auth: what a request must bring.
        max_concurrent: requests that one replica works on at once (``replica_max_concurrent_requests``).
        max_wait_ms: how long a request waits for its turn before it is refused (``max_request_wait_time``).
        scoring_timeout_ms: how long a replica may take.
        clock: seconds since the epoch.
    """

    overloaded: int = 503
    """The status where nobody has time for a request."""
    late: int = 504
    """The status where a replica takes too long."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        keys: Iterable[str] = (),
        tokens: Mapping[str, float] | None = None,
        auth: Auth = "key",
        max_concurrent: int = 1,
        max_wait_ms: float = 500,
        scoring_timeout_ms: float = 60_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.replicas = replicas
        self.keys: tuple[str, ...] = tuple(keys)
        self.tokens: dict[str, float] = dict(tokens or {})
        self.auth: Auth = auth
        self.max_concurrent = max_concurrent
        self.max_wait_ms = max_wait_ms
        self.scoring_timeout_ms = scoring_timeout_ms
        self._clock = clock
        self._turn = threading.Condition()
        self._running = 0

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request; returns when it is answered.

        Args:
            method: only GET and POST reach a replica.
            path: as the container sees it, ``/score``, with the query.
            headers: of the request.
            body: of the request.
        """
        if method not in ("GET", "POST"):
            return self._own(405, "Method not allowed")
        refusal = self._refusal({name.lower(): value for name, value in headers.items()}.get("authorization", ""))
        if refusal:
            return self._own(401, refusal)
        if len(body) > MAX_BODY:
            return self._own(413, f"Request body of {len(body)} bytes is larger than {MAX_BODY}")
        if not self._enter():
            return self._own(self.overloaded, f"Too many requests for service {self.replicas.name} (overloaded)")
        try:
            return self._forward(method, path, headers, body)
        finally:
            with self._turn:
                self._running -= 1
                self._turn.notify()

    def _refusal(self, authorization: str) -> str:
        """Why a request may not come in, empty where it may."""
        if self.auth == "none":
            return ""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret:
            return "key_auth_bad_header_forbidden" if self.auth == "key" else "Jwt is missing"
        if self.auth == "key":
            return "" if any(_same(secret, key) for key in self.keys) else "key_auth_access_denied"
        if self.auth == "aad":
            expires = aad.expiry(secret)
        else:
            expires = next((until for token, until in list(self.tokens.items()) if _same(secret, token)), None)
        if expires is None:
            return "Jwt verification fails"
        return "" if self._clock() < expires else "Jwt is expired"

    def _enter(self) -> bool:
        """Wait for a turn; whether it came."""
        with self._turn:
            if not self._turn.wait_for(self._has_room, self._queue_ms() / 1000):
                return False
            self._running += 1
            return True

    def _has_room(self) -> bool:
        return self._running < self._room()

    def _room(self) -> int:
        return self.replicas.replicas * self.max_concurrent

    def _queue_ms(self) -> float:
        return self.max_wait_ms

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            answer = self.replicas.send(method, path, headers, body, timeout=self.scoring_timeout_ms / 1000)
        except TimeoutError:
            return self._own(self.late, f"Replica did not reply within {self.scoring_timeout_ms:g} ms")
        except NoReplicaError as error:
            return self._own(503, str(error))
        except OSError:
            return self._own(502, "Replica closed connection before replying")
        return self._passed_on(answer)

    def _passed_on(self, answer: Answer) -> Answer:
        """What becomes of a container's answer."""
        status, answered, content = answer
        # azureml-fe answers 502 where the container answers 500; what else the container says stays as it is.
        return (502 if status == 500 else status), answered, content

    def _own(self, status: int, text: str) -> Answer:
        headers = {"content-type": "text/plain; charset=utf-8", "x-ms-request-id": str(uuid.uuid4())}
        return status, headers, text.encode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
