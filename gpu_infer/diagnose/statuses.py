"""What the status of an answer, or the class of an exception, means where its text says nothing more special."""

from __future__ import annotations

from gpu_infer.diagnose.meanings import Meaning

__all__ = ["KEYS", "KINDS", "STATUSES"]

_RIGHTS = "Ask an owner of the workspace for the role AzureML Data Scientist; to make clusters it takes Contributor."
_SUPPORT = "Repeat the call. If it stays so, open a support request with the operation id."

STATUSES: dict[int, Meaning] = {
    status: Meaning(f"status {status}", because, do)
    for status, because, do in (
        (400, "Azure refuses the request as it stands.", "Correct what it names."),
        (
            401,
            "Azure does not accept the login: it has expired, or belongs to another tenant.",
            "Log in again (az login), or renew the service principal's secret; then repeat the call.",
        ),
        (403, "This login may not do that, or the workspace is closed to this network.", _RIGHTS),
        (
            404,
            "Azure does not know what the request names; it may have been deleted meanwhile.",
            "Check the names; then repeat the call.",
        ),
        (408, "Azure waited too long for the request.", "Repeat the call."),
        (
            409,
            "There is something of this name already, or another operation on it is still running.",
            "Wait for that one, take another name, or overwrite=True. After a lost answer it may be your own.",
        ),
        (412, "Something else still needs it.", "Delete that first."),
        (413, "The request is larger than Azure takes.", "Send less at once."),
        (424, "The model itself has answered with an error.", "service.logs() has the traceback."),
        (
            429,
            "Azure limits how often it may be asked, and the SDK's own retries were not enough.",
            "Wait a minute, then repeat the call.",
        ),
        (500, "Azure failed inside.", _SUPPORT),
        (502, "A gateway of Azure got no proper answer from behind it.", _SUPPORT),
        (503, "Azure is overloaded or under maintenance.", "Wait a minute, then repeat the call."),
        (504, "Azure did not answer in time.", _SUPPORT),
    )
}

KEYS = Meaning(
    "status 403, to a request for keys or a token",
    "This login may not read the keys of it, or the workspace is closed to this network.",
    "Ask an owner of the workspace for the role AzureML Data Scientist (Reader does not read keys), or for a key, and "
    "pass that as credential=.",
)
"""Instead of the row of 403."""

KINDS: tuple[tuple[tuple[str, ...], Meaning], ...] = (
    (
        ("ResourceExistsError",),
        Meaning(
            "`azure.core ResourceExistsError` of a storage account",
            "The upload met a file that is there already.",
            "Repeat the call.",
        ),
    ),
    (
        ("ClientAuthenticationError",),
        Meaning(
            "`azure.core ClientAuthenticationError` of a storage account",
            "The storage account refused the upload: the address that Azure gave for it has expired, or the account is "
            "closed to this network.",
            "Repeat the call; else open the account's firewall to this machine.",
        ),
    ),
    (
        ("AuthenticationError", "AuthenticationException"),
        Meaning(
            "`AuthenticationError`, `AuthenticationException`",
            "The login to Azure failed.",
            "Log in again (az login), or renew the service principal's secret.",
        ),
    ),
    (
        ("Timeout", "ReadTimeout", "ConnectTimeout", "ServiceResponseTimeoutError", "TimeoutError"),
        Meaning(
            "`requests Timeout`, no answer within the call's own time-out",
            "Azure did not answer in time. Whether the request was carried out is not known.",
            "gpu_infer.leftovers(workspace) shows what exists; then repeat the call.",
        ),
    ),
    (
        (
            "ConnectionError",
            "ClientRequestError",
            "ServiceRequestError",
            "ServiceResponseError",
            "ChunkedEncodingError",
            "ProxyError",
        ),
        Meaning(
            "`requests ConnectionError`, `msrest ClientRequestError`, `azure.core ServiceRequestError`",
            "Azure could not be reached, or the connection broke. Whether the request was carried out is not known.",
            "Check network and proxy (HTTPS_PROXY); gpu_infer.leftovers(workspace) shows what exists; then repeat.",
        ),
    ),
    (
        ("FileNotFoundError",),
        Meaning("`FileNotFoundError`", "A file that was to be uploaded is not there.", "Check the path."),
    ),
    (
        ("PermissionError",),
        Meaning(
            "`PermissionError`",
            "A file may not be read, or the SDK refuses a model that lies outside the working directory.",
            "Check the file's rights; give a path below the working directory.",
        ),
    ),
)
"""Recognised by the names in an exception's family tree: no SDK is imported to tell."""
