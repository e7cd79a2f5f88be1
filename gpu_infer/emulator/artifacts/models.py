"""Files in folders, and the signatures that let a client read and write them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlencode

from ..wire import Refusal

__all__ = ["Artifacts"]

_EXPIRY = "2099-12-31T00:00:00Z"
_VERSION = "2019-07-07"


class Artifacts:
    """What was uploaded, as files below one folder.

    An artifact's id is ``origin/container/path``; its blob lies under ``ExperimentRun/`` plus that id.
    """

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key
        self._lock = threading.Lock()
        self.metadata: dict[str, dict[str, str]] = {}
        """Of the blobs that have some."""

    def query(self, name: str) -> str:
        """A query that lets a client read and write a blob. Other names than these the SDK does not take for a key."""
        fields = {"sv": _VERSION, "sr": "b", "sig": self._signature(name), "se": _EXPIRY, "sp": "rcw"}
        return urlencode(fields)

    def check(self, name: str, query: Mapping[str, str], *, container: str = "") -> str:
        """The name of the blob for which a query is signed.

        The SDK quotes the name in an upload address once more, so that it may come in quoted still.

        Args:
            name: as it came.
            query: with the signature.
            container: whose signature counts for all its blobs; empty: there is none.

        Raises:
            Refusal: 403, it is signed for another.
        """
        if container and hmac.compare_digest(query.get("sig", "").encode(), self._signature(container).encode()):
            return name
        for known in (name, unquote(name)):
            if hmac.compare_digest(query.get("sig", "").encode(), self._signature(known).encode()):
                return known
        raise Refusal(403, "AuthenticationFailed", "Server failed to authenticate the request: wrong signature.")

    @property
    def root(self) -> Path:
        """The folder of all blobs."""
        return self._folder / "blobs"

    def path(self, name: str) -> Path:
        """Where a blob lies, or would."""
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/") or "\0" in name:
            raise Refusal(400, "InvalidUri", f"{name!r} is no name of a blob.")
        return self.root / Path(*parts)

    def existing(self, name: str) -> Path:
        """Where a blob lies.

        Raises:
            Refusal: 404, it does not exist.
        """
        path = self.path(name)
        if not path.is_file():
            raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
        return path

    def below(self, prefix: str) -> list[str]:
        """Names of the blob with this name, or of all blobs in the folder with this name."""
        path = self.path(prefix.rstrip("/")) if prefix else self.root
        if path.is_file():
            return [prefix.rstrip("/")]
        root = self.root
        return sorted(file.relative_to(root).as_posix() for file in path.rglob("*") if file.is_file())

    def put(self, name: str, upload: Path, *, md5: str | None, fresh: bool) -> None:
        """Store a blob.

        Args:
            name: of the blob.
            upload: its bytes; the file is moved away.
            md5: of the bytes, in base64.
            fresh: refuse to replace one.
        """
        if md5 is not None:
            with upload.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
            if base64.b64encode(digest).decode() != md5:
                raise Refusal(400, "Md5Mismatch", "The MD5 value specified in the request did not match.")
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if fresh and path.exists():
                raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
            upload.replace(path)
            self.metadata.pop(name, None)

    def put_block(self, name: str, block: str, upload: Path) -> None:
        """Keep a block of a blob until the list that makes the blob of it."""
        path = self._block(name, block)
        path.parent.mkdir(parents=True, exist_ok=True)
        upload.replace(path)

    def put_blocks(self, name: str, blocks: list[str], *, fresh: bool) -> None:
        """Make a blob of its blocks."""
        paths = [self._block(name, block) for block in blocks]
        if not all(path.is_file() for path in paths):
            raise Refusal(400, "InvalidBlockList", "The specified block list is invalid.")
        joined = self._folder / f"joined-{threading.get_ident()}"
        joined.parent.mkdir(parents=True, exist_ok=True)
        with joined.open("wb") as out:
            for path in paths:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 20)
        self.put(name, joined, md5=None, fresh=fresh)
        if paths:
            shutil.rmtree(paths[0].parent)

    def _block(self, name: str, block: str) -> Path:
        return self._folder / "blocks" / _digest(name) / _digest(block)

    def _signature(self, name: str) -> str:
        return base64.b64encode(hmac.digest(self._key, quote(name).encode(), "sha256")).decode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
