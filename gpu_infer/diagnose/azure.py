"""What the Azure SDKs raise, as one typed error.

They are read without importing any of them: the family names of an exception, its ``status_code``, ``response`` and
``message``, and its text. The text may be missing: some of them cannot even be printed.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from http import HTTPStatus
from typing import Any, cast

from gpu_infer.blotting import blotted
from gpu_infer.diagnose.logs import init_failure, last_traceback, tail
from gpu_infer.diagnose.meanings import LATE, TEXTS, Meaning
from gpu_infer.diagnose.statuses import KEYS, KINDS, STATUSES
from gpu_infer.errors import (
    DeploymentError,
    DeploymentTimeoutError,
    GpuInferError,
    ScoringError,
    ScoringInitError,
    WorkspaceError,
)

__all__ = ["azure_error"]

MOST_SAID = 700
"""Characters of Azure's own words in a message."""

MOST_BODIES = 50
"""Brackets that are tried for a body: a text may hold any number that are never closed."""

SHOWN_LINES = 15
"""Of a log, in a message; ``.logs`` of the error has more."""

_UNKNOWN = Meaning("", "", "Repeat the call. If it stays so, open a support request with these words.")
_REFUSED = Meaning("", "Azure refuses the request.", "Correct what it names, or open a support request.")
_INSIDE = Meaning("", "Azure failed inside.", "Repeat the call. If it stays so, open a support request.")

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""``azure-ai-ml`` writes its own refusals in colours."""

_TOLD_TWICE = re.compile(r"\(([^()\s]+)\) (.*?)\s+Code: \1\s+Message: \2(?:\s|$)", re.DOTALL)
"""How azure-core prints a body: code and message, and both once more."""

_FOR_KEYS = re.compile(r"fetching (?:the keys|a token) of ")
"""How the targets call it."""

_FAILED_LATER = {"InternalServerError": 500, "ServiceUnavailable": 503}
"""Codes of operations that have failed, which Azure tells with status 200, and the status that means the same."""

_REASONS = {status.phrase.lower(): status.value for status in HTTPStatus}
_STATUS = re.compile(r"(?:Response Code|status_code|StatusCode|statusCode)\W{1,4}(\d{3})\b")
_REASON = re.compile(r"invalid status code '([\w ]+)'", re.IGNORECASE)


def azure_error(
    error: BaseException | None,
    *,
    doing: str,
    default: type[GpuInferError],
    text: str = "",
    logs: str = "",
    crashed: bool = True,
) -> GpuInferError:
    """Make one typed error: what happened, why, what to do, and Azure's own words without their secrets.

    Args:
        error: what the SDK raised, ``None`` where Azure has only said something.
        doing: what was being done, such as ``creating cluster 'aks-gpu'``.
        default: the type, where the text does not tell a more special one.
        text: more of what Azure has said.
        logs: of the service's containers; a traceback in them decides where Azure names no other reason.
        crashed: whether that traceback can be what it failed by: else it is of a container that ran before.

    Returns:
        the error; the caller raises it ``from`` the SDK's.
    """
    said = "\n".join(part for part in (_text(error), text) if part)
    status = _status(error, said)
    meaning = _meaning(error, said, status)
    if meaning is _UNKNOWN and issubclass(default, DeploymentTimeoutError):
        meaning = LATE
    if meaning is STATUSES[HTTPStatus.FORBIDDEN] and _FOR_KEYS.match(doing):
        meaning = KEYS
    tells_no_other = meaning.error in (None, ScoringInitError, DeploymentTimeoutError)
    if logs and crashed and tells_no_other and issubclass(default, DeploymentError) and last_traceback(logs):
        name = re.search(r"'([^']*)'", doing)
        change = doing if doing.startswith(("updating", "scaling")) else ""
        return init_failure(name[1] if name else "", logs, doing=change)
    kind = meaning.error or default
    if kind is ScoringInitError and not issubclass(default, DeploymentError):
        kind = default
    because = " ".join(part for part in (meaning.because, _arithmetic(meaning, said)) if part)
    words = _words(said)
    lines = [f"{doing[:1].upper()}{doing[1:]} failed: {because or words or 'Azure does not say why.'}", meaning.do]
    shown = status if status and status >= 400 else None
    if words and because and type(error) not in (KeyError, AttributeError, TypeError):  # slips of the SDK tell nothing
        who = "Azure says" if error is None or shown or _code(error) or _body(said) else "The SDK says"
        lines.append(f"{who}{f' ({shown})' if shown else ''}: {words}")
    if issubclass(kind, DeploymentTimeoutError) and logs.strip():
        lines.append(f"The end of its log:\n{tail(logs, SHOWN_LINES)}")
    return _made(kind, blotted("\n".join(lines)), status, logs)


# --- inside -----------------------------------------------------------------------------------------------------------


def _made(kind: type[GpuInferError], message: str, status: int | None, logs: str) -> GpuInferError:
    if issubclass(kind, DeploymentError):
        return kind(message, logs=tail(logs))
    if issubclass(kind, (WorkspaceError, ScoringError)):
        return kind(message, status=status)
    return kind(message)


def _text(error: BaseException | None) -> str:
    """An exception's own words: ``message`` first, since the SDK wraps it in lines of its own when printed."""
    if error is None:
        return ""
    message = getattr(error, "message", None)
    if isinstance(message, str) and message:
        return _COLOURS.sub("", message)
    try:
        return _COLOURS.sub("", str(error)) or type(error).__name__
    except Exception:  # noqa: BLE001 - the SDK's __str__ itself fails where Azure's body has no details
        return type(error).__name__


def _status(error: BaseException | None, said: str) -> int | None:
    response: Any = getattr(error, "response", None)
    for holder in (error, response):
        status: Any = getattr(holder, "status_code", None)
        if isinstance(status, int) and not isinstance(status, bool):
            return status
    found = _STATUS.search(said)
    if found:
        return int(found[1])
    reason = _REASON.search(said)
    return _REASONS.get(reason[1].lower()) if reason else None


def _meaning(error: BaseException | None, said: str, status: int | None) -> Meaning:
    """Azure's words decide, then the status, then the family of the exception."""
    plain = re.sub(r"Headers: \{.*?\}\n", "", said, flags=re.DOTALL)
    for meaning in TEXTS:
        if re.search(meaning.pattern, plain, re.IGNORECASE):
            return meaning
    names = {kind.__name__ for kind in type(error).__mro__} if error is not None else set[str]()
    # Azure itself names a code in JSON; without one it is a storage account that has answered.
    if status is None or (names & {"ClientAuthenticationError", "ResourceExistsError"} and not _code(error)):
        for family, meaning in KINDS:
            if names & set(family):
                return meaning
    if status is not None and status < 400:
        status = _FAILED_LATER.get(_code(error))
    if status is None:
        return _UNKNOWN
    return STATUSES.get(status, _REFUSED if status < 500 else _INSIDE)


def _code(error: BaseException | None) -> str:
    """The code of Azure's error, in the form of azure-core."""
    return str(getattr(getattr(error, "error", None), "code", None) or "")


def _arithmetic(meaning: Meaning, said: str) -> str:
    if meaning.arithmetic == "quota":
        return _quota(said)
    found = re.search(r"(\d+)/(\d+) nodes are available", said) if meaning.arithmetic == "gpu" else None
    return f"Of {found[2]} nodes {found[1]} have room." if found else ""


def _quota(said: str) -> str:
    """The numbers of a quota message, in the forms of managed endpoints and of virtual machines."""
    short = re.search(r"Current usage/limit: (\d+)/(\d+)\. Additional needed: (\d+)", said, re.IGNORECASE)
    if short:
        used, limit, needed = (int(number) for number in short.groups())
    else:
        numbers = [
            re.search(rf"{what}\W+(\d+)", said, re.IGNORECASE)
            for what in ("Current Usage", "Current Limit", "Additional Required")
        ]
        if not all(numbers):
            return ""
        used, limit, needed = (int(number[1]) for number in numbers if number)
    family = re.search(r"\b(standard\s?[\w ]*?Family)\b", said, re.IGNORECASE)
    of = f" of {family[1]}" if family else ""
    return f"{used} of {limit} cores{of} are in use and {needed} more are needed: ask for a limit of {used + needed}."


def _words(said: str) -> str:
    """Azure's message out of what the SDK makes of it, on one line and not too long."""
    text = _unfolded(_body(said) or re.sub(r"Headers: \{.*?\}\n", "", said, flags=re.DOTALL))
    text = _TOLD_TWICE.sub(r"\1: \2 ", text).replace("Exception Details:", "")
    # Blotted before it is cut, or the rest of a half key would not be recognised.
    text = " ".join(blotted(text).split())
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}..."


def _body(said: str) -> str:
    """The messages of a JSON body in the text: of an answer's content, or of an operation's error."""
    provisioning = re.search(r"Provisioning operation error:\s*(?:StatusCode: \d+\s*Message:)?(.*)", said, re.DOTALL)
    if provisioning:
        return "" if provisioning[1].strip() in ("", "None") else provisioning[1]
    content = re.search(r"Content: (b'.*'|b\".*\")\s*$", said, re.DOTALL)
    failed = re.search(r"Error:\s*(\{.*\})", said, re.DOTALL)
    raw = ""
    if content:
        try:
            raw = cast("bytes", ast.literal_eval(content[1])).decode("utf-8", "replace")
        except (SyntaxError, ValueError):
            return ""
    elif failed:
        raw = failed[1]
    try:
        return _messages(json.loads(raw)) if raw else ""
    except ValueError:
        return raw


def _unfolded(text: str) -> str:
    """A text in which bodies, in JSON or as Python prints them, are replaced by their messages."""
    pieces: list[str] = []
    at = 0
    for start in itertools.islice(re.finditer(r"[{\[]", text), MOST_BODIES):
        end = _end_of(text, start.start()) if start.start() >= at else 0
        body = _literal(text[start.start() : end])
        if isinstance(body, dict | list) and "message" in text[start.start() : end]:
            each = cast("list[Any]", body if isinstance(body, list) else [body])
            pieces += [text[at : start.start()], " ".join(_messages(one) for one in each)]
            at = end
    return "".join([*pieces, text[at:]])


def _end_of(text: str, start: int) -> int:
    """Where the bracket at ``start`` is closed; brackets in quotes do not count."""
    depth = 0
    for piece in re.finditer(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[{}\[\]]", text[start:]):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(piece[0], 0)
        if depth == 0:
            return start + piece.end()
    return 0


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return None


def _messages(body: Any) -> str:
    """``message`` of a body and of its details; bodies may lie in an ``error`` of their own, even twice."""
    while isinstance(body, dict) and isinstance(cast("dict[str, Any]", body).get("error"), dict):
        body = cast("dict[str, Any]", body)["error"]
    if not isinstance(body, dict):
        return str(body)
    fields = cast("dict[str, Any]", body)
    pieces = [f"{fields['code']}:" if fields.get("code") else "", str(fields.get("message") or "")]
    details: Any = fields.get("details") or []
    for detail in cast("list[Any]", details) if isinstance(details, list) else []:
        text = _messages(detail)
        if text not in pieces:
            pieces.append(text)
    return " ".join(piece for piece in pieces if piece) or json.dumps(fields)
