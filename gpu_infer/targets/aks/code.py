"""The code of a web service, as it was uploaded.

The SDK gives an object of a service that has no word of its files. The answer that it makes the object of has one,
``environmentImageRequest.assets`` (``AKSServiceResponse`` in Azure's description of the interface), and what fetches
artifacts is in the SDK, too. Both are private to it, and 1.61 is the last version that there will be; so this is tried,
and where it fails, the user is asked for the folder.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from gpu_infer.errors import GpuInferError, MissingDependencyError, WorkspaceError
from gpu_infer.ledger import state_folder
from gpu_infer.progress import Event, emit
from gpu_infer.targets.aks.sdk import sdk
from gpu_infer.targets.calls import call

__all__ = ["conda_in_state", "fetch_code"]

CODE_SECONDS = 60.0
"""For one uploaded file. The SDK tries a storage account that lets nobody in for nearly five minutes."""

_ARTIFACT = "aml://artifact/"


def fetch_code(workspace: Any, name: str) -> tuple[Path | None, str]:
    """Bring the files of a web service onto this machine; what is here already is used again.

    Args:
        workspace: where.
        name: of the service.

    Returns:
        the folder that has them as the container has, or ``None`` and the reason.
    """
    try:
        assets = _assets(workspace, name)
        if not assets:
            return None, "Azure does not say where it lies"
        folder = _place(workspace) / f"{name}-{_digest(sorted(map(str, assets)))}"
        if not folder.exists():
            _fetch(workspace, name, assets, folder)
    except MissingDependencyError:
        raise
    except GpuInferError as error:
        return None, str(error).rstrip(".")
    except (tarfile.TarError, OSError) as error:
        return None, f"what was uploaded cannot be unpacked: {error}"
    return folder, ""


def conda_in_state(workspace: Any, name: str, text: str) -> Path:
    """A file of this machine that holds a service's conda file."""
    path = _place(workspace) / f"{name}-{_digest([text])}.yml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return path


# --- inside -----------------------------------------------------------------------------------------------------------


def _assets(workspace: Any, name: str) -> list[Mapping[str, Any]]:
    """The uploaded files, without the little script that only imports the entry script."""
    webservice = sdk("azureml.core.Webservice")
    get = webservice._get  # noqa: SLF001 - see the text of this module
    doing = f"asking for the files of service {name!r}"
    answer: dict[str, Any] = call(get, workspace, name, doing=doing, default=WorkspaceError) or {}
    request: dict[str, Any] = answer.get("environmentImageRequest") or {}
    assets = cast("Sequence[Mapping[str, Any]]", request.get("assets") or ())
    driver = request.get("driverProgram")
    return [one for one in assets if str(one.get("url")).startswith(_ARTIFACT) and one.get("id") != driver]


def _fetch(workspace: Any, name: str, assets: Sequence[Mapping[str, Any]], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
    emit(Event(name, "download_code", "start"))
    try:
        client = sdk("azureml._restclient.artifacts_client.ArtifactsClient")(workspace.service_context)
        for asset in assets:
            origin, container, path = str(asset["url"]).removeprefix(_ARTIFACT).split("/", 2)
            file = partial / PurePosixPath(str(asset.get("id") or path)).name
            doing = f"downloading the code of service {name!r}"
            call(
                client.download_artifact,
                origin,
                container,
                path,
                str(file),
                doing=doing,
                default=WorkspaceError,
                timeout=CODE_SECONDS,
            )
            if asset.get("unpack"):
                with tarfile.open(file) as archive:
                    archive.extractall(partial, filter="data")
                file.unlink()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    emit(Event(name, "download_code", "ok"))


def _place(workspace: Any) -> Path:
    return state_folder() / "code" / workspace.subscription_id / workspace.resource_group / workspace.name


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
