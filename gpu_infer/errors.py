"""Every exception the library raises.

::

    GpuInferError
     ├── PreflightError              a check failed before anything was started or created (.findings)
     │    └── MissingDependencyError a package is not installed (also an ImportError)
     ├── WorkspaceError              the workspace refused or did not answer (.status)
     ├── ProvisioningError           a cluster or endpoint could not be created
     ├── DeploymentError             a service did not become healthy (.logs)
     │    ├── ScoringInitError       score.py failed on import or in init() (.traceback, .stage)
     │    ├── DeploymentTimeoutError not healthy in time (also a TimeoutError)
     │    ├── InsufficientGpuError   no GPU where one was demanded
     │    ├── QuotaError             the subscription's quota does not cover it (also a ProvisioningError)
     │    ├── ImageBuildError        the container image could not be built
     │    └── AnswersDifferError     a migrated service answers otherwise than the old one (.largest, .at)
     ├── ServiceNotFoundError        no service of that name (also a LookupError)
     ├── UnsupportedError            this target cannot do that
     ├── ScoringError                a request got no result (.status, .request_id, .attempts, .elapsed)
     │    ├── BadInputError          the input is wrong; nothing to gain from a retry (also a ValueError; .item)
     │    ├── ModelError             the model or a hook raised (.item)
     │    ├── OverloadedError        the service has no room now (.retry_after)
     │    ├── ScoringTimeoutError    no answer in time (also a TimeoutError)
     │    ├── AuthenticationError    the key or token was refused
     │    └── ScoringConnectionError the service could not be reached (also a ConnectionError)
     ├── CheckpointError             the checkpoint of score_many() cannot be gone on with (also a ValueError)
     └── TeardownError               something is left and may still be billed (.left)

Messages say what happened, why, and what to do next. ``__cause__`` keeps the exception of the layer below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AnswersDifferError",
    "AuthenticationError",
    "BadInputError",
    "CheckpointError",
    "DeploymentError",
    "DeploymentTimeoutError",
    "Finding",
    "GpuInferError",
    "ImageBuildError",
    "InsufficientGpuError",
    "MissingDependencyError",
    "ModelError",
    "OverloadedError",
    "PreflightError",
    "ProvisioningError",
    "QuotaError",
    "ScoringConnectionError",
    "ScoringError",
    "ScoringInitError",
    "ScoringTimeoutError",
    "ServiceNotFoundError",
    "TeardownError",
    "UnsupportedError",
    "WorkspaceError",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check: what was found, and what to do about it.

    ``level`` is ``"error"`` (the job cannot work), ``"warning"`` (it may not do what is meant) or ``"info"``.
    """

    level: Literal["error", "warning", "info"]
    code: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()


class GpuInferError(Exception):
    """Base of every exception of this library."""


class PreflightError(GpuInferError):
    """A check failed before anything was started or created.

    Args:
        findings: what was found; the errors among them make up the message.
    """

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        errors = [finding for finding in findings if finding.level == "error"] or findings
        super().__init__("\n".join(str(finding) for finding in errors))

    def __reduce__(self) -> tuple[type, tuple[list[Finding]]]:
        return (type(self), (self.findings,))


class MissingDependencyError(PreflightError, ImportError):
    """A package that this job needs is not installed; the message carries the command that installs it."""


class WorkspaceError(GpuInferError):
    """The workspace refused a request or did not answer.

    Attributes:
        status: HTTP status of the answer, ``None`` where none came or none is known.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProvisioningError(GpuInferError):
    """A cluster or endpoint could not be created."""


class DeploymentError(GpuInferError):
    """A service did not become healthy.

    Attributes:
        logs: the last lines of the service's log, empty where there is none.
    """

    def __init__(self, message: str, *, logs: str = "") -> None:
        super().__init__(message)
        self.logs = logs


class ScoringInitError(DeploymentError):
    """The entry script failed on import or in ``init()``.

    Attributes:
        traceback: the script's own traceback, as it stands in the log; empty where the process died without one.
        stage: the stage that was running (``find_model``, ``load_model``, ...), empty where none was announced.
    """

    def __init__(self, message: str, *, traceback: str = "", stage: str = "", logs: str = "") -> None:
        super().__init__(message, logs=logs)
        self.traceback = traceback
        self.stage = stage


class DeploymentTimeoutError(DeploymentError, TimeoutError):
    """The service was not healthy within the deadline."""


class InsufficientGpuError(DeploymentError):
    """A GPU is demanded and none is there, or all are taken."""


class QuotaError(DeploymentError, ProvisioningError):
    """The subscription's quota does not cover the job."""


class ImageBuildError(DeploymentError):
    """The container image could not be built."""


class AnswersDifferError(DeploymentError):
    """A migrated service gave other answers than the old one, and was removed again; the old one serves on.

    Attributes:
        largest: the largest absolute difference of two numbers, infinite where answers are not of one form.
        at: index of the golden item whose answers are farthest apart.
    """

    def __init__(self, message: str, *, largest: float = float("inf"), at: int = 0) -> None:
        super().__init__(message)
        self.largest = largest
        self.at = at


class ServiceNotFoundError(GpuInferError, LookupError):
    """No service of that name is known."""


class UnsupportedError(GpuInferError):
    """The target of this service cannot do what was asked."""


class ScoringError(GpuInferError):
    """A request got no result.

    Attributes:
        status: HTTP status of the last answer, ``None`` when none came.
        request_id: the id the request carried as ``x-ms-client-request-id``; the service's log has it too.
        attempts: how many times the request was sent.
        elapsed: seconds from the first attempt to the decision to give up.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str = "",
        attempts: int = 1,
        elapsed: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.attempts = attempts
        self.elapsed = elapsed


class BadInputError(ScoringError, ValueError):
    """The input is wrong; sending it again cannot help.

    Attributes:
        item: index of the item at fault, ``None`` where the whole request is.
    """

    item: int | None = None


class ModelError(ScoringError):
    """The model or one of its hooks raised.

    Attributes:
        item: index of the item at fault, ``None`` where that is not known.
    """

    item: int | None = None


class OverloadedError(ScoringError):
    """The service has no room for the request now.

    Attributes:
        retry_after: seconds the service asks to wait, ``None`` where it does not say.
    """

    retry_after: float | None = None


class ScoringTimeoutError(ScoringError, TimeoutError):
    """No answer came in time."""


class AuthenticationError(ScoringError):
    """The key or token was refused."""


class ScoringConnectionError(ScoringError, ConnectionError):
    """The service could not be reached."""


class CheckpointError(GpuInferError, ValueError):
    """The checkpoint of a ``score_many()`` cannot be gone on with; nothing in the file was changed."""


class TeardownError(GpuInferError):
    """Something could not be removed and may still be billed.

    Attributes:
        left: names of what is left.
    """

    def __init__(self, message: str, *, left: list[str] | None = None) -> None:
        super().__init__(message)
        self.left: list[str] = left or []
