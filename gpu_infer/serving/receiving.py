"""The body and the headers of a request, as the stock server hands it over."""

from __future__ import annotations

import contextlib
from typing import Any, Generator, List, Union

from .codecs.decode import MULTIPART, Part
from .failures import BadInput, BodyTooLarge

MIB = 1 << 20

NO_MEMORY = "There is no memory for a body of this size now. Send fewer items per request."
_TOO_LARGE = "The body is larger than {:g} MiB. Send fewer items per request, or raise GPU_INFER_MAX_BODY_MB."

_WSGI_NAMES = {
    name: "HTTP_" + name.upper().replace("-", "_")
    for name in (
        "accept",
        "x-gpu-infer-items",
        "x-gpu-infer-timeout-ms",
        "x-ms-client-request-id",
        "x-request-id",
    )
}


def receive(request: Any, *, limit: int) -> Union[bytes, List[Part]]:
    """Read the body of a request, or its parts.

    Raises:
        BadInput: it cannot be read, or ends too early.
        BodyTooLarge: it has more than ``limit`` bytes.
    """
    length = request.environ.get("CONTENT_LENGTH", "")
    if length.isdigit() and int(length) > limit:
        raise BodyTooLarge(_TOO_LARGE.format(limit / MIB))
    if length.isdigit() and content_type(request) != MULTIPART:
        return _read(request, int(length))
    with contextlib.suppress(AttributeError):  # Flask before 3.1 lets only the application set it
        request.max_content_length = limit
    with _body_errors(limit):
        return _read_parts(request) if content_type(request) == MULTIPART else request.get_data(cache=False)


def _read(request: Any, length: int) -> bytes:
    """Read a body of known length."""
    try:
        body = request.environ["wsgi.input"].read(length)
    except MemoryError as error:
        raise BodyTooLarge(NO_MEMORY) from error
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    if len(body) < length:
        raise BadInput(f"The body ends after {len(body):,} of {length:,} bytes.")
    return body


def _unreadable(error: Exception) -> BadInput:
    return BadInput(f"The body could not be read: {str(error)[:200]}.")


@contextlib.contextmanager
def _body_errors(limit: int) -> Generator[None, None, None]:
    """Turn what Werkzeug raises while a body is read into our answers."""
    from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

    try:
        yield
    except RequestEntityTooLarge as error:
        raise BodyTooLarge(_TOO_LARGE.format(limit / MIB) + " A multipart body has up to 1,000 parts.") from error
    except MemoryError as error:
        raise BodyTooLarge(NO_MEMORY) from error
    except (HTTPException, OSError, ValueError) as error:
        raise _unreadable(error) from error


def header(request: Any, name: str) -> str:
    """A header of a request, straight from WSGI: Flask's own headers are made anew for each question."""
    return request.environ.get(_WSGI_NAMES[name], "")


def content_type(request: Any) -> str:
    """The content type without its parameters, in small letters; empty where none was sent."""
    return request.environ.get("CONTENT_TYPE", "").split(";")[0].strip().lower()


def _read_parts(request: Any) -> List[Part]:
    parts: List[Part] = []
    if request.form:
        names = ", ".join(sorted(request.form)[:5])
        raise BadInput(f"The multipart body has fields without a file name ({names}); each item is a file part.")
    for _name, file in request.files.items(multi=True):  # noqa: PERF102 - values() gives one file per name
        with contextlib.closing(file):
            parts.append(Part((file.mimetype or "").lower(), file.read()))
    return parts
