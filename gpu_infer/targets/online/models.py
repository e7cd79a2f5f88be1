"""Registered models of a workspace through ``azure-ai-ml``: look up, register a local one, download."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from gpu_infer.bundle import FRAMEWORK_TEMPLATES, model_files
from gpu_infer.diagnose import azure_error
from gpu_infer.errors import DeploymentError, Finding, GpuInferError, PreflightError, WorkspaceError
from gpu_infer.preflight import template_of_files
from gpu_infer.progress import Event, emit
from gpu_infer.spec import ModelRef, ServiceSpec
from gpu_infer.targets.calls import ask, call, call_timeout
from gpu_infer.targets.models import (
    DOWNLOAD_SECONDS,
    RUN_TAG,
    UPLOAD_BYTES_PER_SECOND,
    RegisteredModel,
    bytes_of,
    stored,
)
from gpu_infer.targets.online.sdk import entity, is_absent, sdk, workspace_path

__all__ = [
    "TEMPLATE_TAG",
    "archive_models_of",
    "download_model",
    "ensure_model",
    "find_model",
    "framework_of",
    "is_triton",
    "missing_model",
    "register_model",
]

TEMPLATE_TAG = "gpu-infer-template"
MOST_NAMES = 50
"""Names of models in a message."""


def find_model(client: Any, ref: ModelRef) -> RegisteredModel | None:
    """The registered model, ``None`` where there is none of that name and version.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    which: dict[str, Any] = {"label": "latest"} if ref.version is None else {"version": ref.version}
    try:
        found = ask(client.models.get, ref.name, **which)
    except PreflightError:
        raise
    except Exception as error:
        if is_absent(error) or ("latest" in which.values() and _says_absent(error)):
            return None
        raise azure_error(error, doing=f"looking for model {str(ref)!r}", default=WorkspaceError) from error
    return RegisteredModel(found.name, str(found.version), found)


def missing_model(client: Any, ref: ModelRef) -> Finding:
    """What is said where ``find_model`` has found none: the versions that there are, else the names."""
    message = f"Model {str(ref)!r} is not registered in workspace {client.workspace_name!r}, and there is no such path."
    versions = [str(model.version) for model in _listed(client, ref.name)]
    if versions and ref.version is not None:
        which = f"{'are versions' if len(versions) > 1 else 'is version'} {', '.join(sorted(versions))}"
        fix = f"Of {ref.name!r} there {which}. Without a version the newest is taken."
    else:
        names = sorted({model.name for model in _listed(client)})[:MOST_NAMES]
        fix = f"Registered: {', '.join(names) or 'none'}. A path registers a model of this machine first."
    return Finding("error", "model-missing", message, fix)


def framework_of(client: Any, model: RegisteredModel) -> str:
    """The template for a registered model, from its tags or from the names of its files; empty where unclear.

    Raises:
        WorkspaceError: the workspace refused or did not answer.
    """
    tags: dict[str, str] = model.raw.tags or {}
    named = tags.get(TEMPLATE_TAG, "")
    if named in FRAMEWORK_TEMPLATES.values():
        return named
    return template_of_files(_files_of(client, model))


def is_triton(model: RegisteredModel) -> bool:
    """Whether Azure ML serves a model by Triton, without code."""
    return model.raw.type == "triton_model"


def register_model(client: Any, ref: ModelRef, *, framework: str, run: str) -> RegisteredModel:
    """Register a model of this machine under its name, as a new version.

    Args:
        client: of the workspace.
        ref: with a path.
        framework: name of its template, noted as a tag.
        run: that it is registered for, noted as a tag.

    Raises:
        DeploymentError: it could not be uploaded or registered.
    """
    if ref.path is None:
        message = f"Model {ref.name!r} has no path to register it from."
        raise ValueError(message)
    files = model_files(ref.path.resolve())
    size = bytes_of(files)
    emit(Event(ref.name, "register_model", "start", f"{size / 2**20:.0f} MiB"))
    tags = {RUN_TAG: run, **({TEMPLATE_TAG: framework} if framework else {})}
    with _one_path(ref.name, files) as path:
        model = call(
            client.models.create_or_update,
            entity("Model")(name=ref.name, path=str(path), type="custom_model", tags=tags),
            doing=f"registering model {ref.name!r} from {ref.path}",
            default=DeploymentError,
            timeout=call_timeout() + size / UPLOAD_BYTES_PER_SECOND,
        )
    emit(Event(ref.name, "register_model", "ok", f"version {model.version}"))
    return RegisteredModel(model.name, str(model.version), model)


def ensure_model(client: Any, spec: ServiceSpec, *, framework: str, run: str) -> RegisteredModel:
    """The registered model of a spec; one of this machine is registered for this run.

    Raises:
        PreflightError: it is not registered.
        DeploymentError: it could not be registered.
    """
    if spec.model.path is not None:
        return register_model(client, spec.model, framework=framework, run=run)
    model = find_model(client, spec.model)
    if model is None:
        raise PreflightError([missing_model(client, spec.model)])
    return model


def download_model(client: Any, model: RegisteredModel) -> Path:
    """Bring a registered model onto this machine; one that is here already is used again.

    Returns:
        its file or folder.
    """

    def fetch(folder: Path) -> None:
        call(
            client.models.download,
            model.name,
            model.version,
            download_path=str(folder),
            doing=f"downloading model {model.id!r}",
            default=WorkspaceError,
            timeout=max(call_timeout(), DOWNLOAD_SECONDS),
        )
        inner = folder / model.name  # the SDK makes a folder of the model's name
        if inner.is_dir():
            for part in inner.iterdir():
                part.rename(folder / f".{part.name}")
            inner.rmdir()
            for part in folder.iterdir():
                part.rename(folder / part.name.removeprefix("."))

    return stored(model, workspace_path(client), fetch)


def archive_models_of(client: Any, run: str) -> list[str]:
    """Archive the models that one run has registered: ``azure-ai-ml`` cannot delete any, and they cost next to nothing.

    Returns:
        their names and versions.

    Raises:
        WorkspaceError: they could not be listed or archived.
    """
    every = call(lambda: list(client.models.list()), doing="listing the models", default=WorkspaceError)
    names = sorted({model.name for model in every})
    archived: list[str] = []
    for name in names:
        versions = call(
            functools.partial(_versions, client, name),
            doing=f"listing the versions of model {name!r}",
            default=WorkspaceError,
        )
        for model in versions:
            tags: dict[str, str] = model.tags or {}
            if tags.get(RUN_TAG) != run:
                continue
            doing = f"archiving model '{model.name}:{model.version}'"
            call(client.models.archive, model.name, version=str(model.version), doing=doing, default=WorkspaceError)
            archived.append(f"{model.name}:{model.version}")
    return archived


# --- inside -----------------------------------------------------------------------------------------------------------


def _says_absent(error: BaseException) -> bool:
    """Whether the SDK has looked for the newest version and has found none, which it says in words alone."""
    text = str(getattr(error, "message", "") or error).lower()
    return "no asset" in text or "not found" in text or "could not be found" in text or "does not exist" in text


def _versions(client: Any, name: str) -> list[Any]:
    return list(client.models.list(name=name))


def _listed(client: Any, name: str | None = None) -> list[Any]:
    """Models, for a message; none where they cannot be had."""
    try:
        return ask(lambda: list(client.models.list(name=name)))
    except Exception:  # noqa: BLE001 - the message is about something else
        return []


def _files_of(client: Any, model: RegisteredModel) -> list[str]:
    """Names of a model's files; from the store that it lies in, since ``azure-ai-ml`` does not list them."""
    path = str(model.raw.path or "")
    _, found, rest = path.partition("/datastores/")
    name, _, below = rest.partition("/paths/")
    if not found or not below:
        return [urlsplit(path).path.rsplit("/", 1)[-1]]
    doing = f"listing the files of model {model.id!r}"
    try:
        return call(lambda: list(_blob_names(client, name, below)), doing=doing, default=WorkspaceError)
    except GpuInferError as error:
        emit(Event(model.name, "list_files", "warning", f"what it is made of cannot be seen: {error}"))
        return []


def _blob_names(client: Any, datastore: str, below: str) -> Iterable[str]:
    store = client.datastores.get(datastore, include_secrets=True)
    secrets = store.credentials
    key = getattr(secrets, "account_key", None) or getattr(secrets, "sas_token", None)
    account = f"{store.protocol}://{store.account_name}.blob.{store.endpoint}"
    containers: Any = sdk("azure.storage.blob.ContainerClient")
    with containers(account, store.container_name, credential=key) as container:
        for name in cast("Iterable[str]", container.list_blob_names(name_starts_with=below)):
            yield name.removeprefix(below).strip("/") or name.rsplit("/", 1)[-1]


@contextmanager
def _one_path(name: str, files: list[Path]) -> Generator[Path]:
    """A path to a model: what is of several files lies in a folder as long as the upload lasts."""
    if len(files) == 1:
        yield files[0]
        return
    parent = Path(tempfile.mkdtemp(prefix="gpu-infer-upload-"))
    try:
        folder = parent / name
        folder.mkdir()
        for file in files:
            (folder / file.name).symlink_to(file)
        yield folder
    finally:
        shutil.rmtree(parent, ignore_errors=True)
