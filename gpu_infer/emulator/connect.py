"""Three ways to a workspace of the emulator, and one for azure-ai-ml; none changes anything in the SDKs.

``"subclass"``
    A small subclass of the SDK's ``AbstractAuthentication`` says where Azure is. The quickest: nearly all goes over
    plain HTTP. Nothing needs to be set before the SDK is imported. :func:`workspace` takes this if not told otherwise.
``"environment"``
    ``ARM_CLOUD_METADATA_URL`` announces the emulator as a cloud of its own, and the SDK's ``TokenAuthentication`` signs
    in. For code that makes its own authentication object. The SDK reads the variables once, when it is imported.
``"proxy"``
    ``HTTPS_PROXY`` leads all of the SDK's connections to the emulator, which has certificates for Azure's own names,
    and ``ServicePrincipalAuthentication`` signs in. For code that must run as it is, down to the last line.

For the latter two a process starts with :func:`variables` in its environment.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, get_args

from ..errors import Finding, MissingDependencyError

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azureml.core import Workspace

__all__ = ["Mode", "credential", "forget", "ml_client", "remember", "variables", "workspace"]

Mode = Literal["subclass", "environment", "proxy"]
_HOST = "127.0.0.1"
_lock = threading.Lock()
_running: dict[str, int] = {}
_before: dict[str, str | None] = {}


class _Info(TypedDict):
    """What an emulator says of itself."""

    subscription_id: str
    resource_group: str
    name: str
    location: str
    tenant_id: str
    url: str
    tls_url: str
    ca_file: str
    client_id: str
    client_secret: str
    no_config: str


def workspace(url: str, *, mode: Mode = "subclass") -> Workspace:
    """The workspace of the emulator at ``url``, from any process of this machine.

    Sets ``REQUESTS_CA_BUNDLE`` in the environment of this process, over what is there (the file holds that, too), and
    adds 127.0.0.1 to ``NO_PROXY``: uploads go over TLS, and the SDK takes the certificates to trust from nowhere else.

    Args:
        url: ``Emulator.url``, or what ``gpu-infer emulator`` printed.
        mode: ``"subclass"``, or one of the other two if the process was started with :func:`variables`.

    Returns:
        an ``azureml.core.Workspace``, the SDK's own.

    Raises:
        ConnectionError: no emulator answers there.
        MissingDependencyError: azureml-core is not installed.
        RuntimeError: the mode's variables are not set.
        ValueError: there is no such mode.
    """
    info = _info(url)
    expected = _variables(info, mode)
    missing = sorted(name for name, value in expected.items() if name not in _TRUST and os.environ.get(name) != value)
    if missing:
        raise RuntimeError(
            f"Mode {mode!r} needs {', '.join(missing)} in the environment before azureml.core is imported. Start the "
            f"process with gpu_infer.emulator.variables({url!r}, mode={mode!r}) in its environment."
        )
    _trust(info)
    try:
        from azureml.core import Workspace
    except ImportError as error:
        message = "The workspace needs the package azureml-core, which is not installed."
        raise MissingDependencyError(
            [Finding("error", "missing-extra", message, "Run: pip install 'gpu-infer[aks]'")]
        ) from error
    made: Any = Workspace
    return cast(
        "Workspace",
        made(info["subscription_id"], info["resource_group"], info["name"], auth=_authentication(info, mode)),
    )


def ml_client(url: str) -> Any:
    """A client of ``azure-ai-ml`` for the emulator at ``url``, from any process of this machine.

    Sets ``REQUESTS_CA_BUNDLE`` and ``NO_PROXY`` as :func:`workspace` does. The emulator answers all that
    ``online_endpoints``, ``online_deployments``, ``models`` and ``environments`` ask.

    Args:
        url: ``Emulator.url``, or what ``gpu-infer emulator`` printed.

    Returns:
        an ``azure.ai.ml.MLClient``, the SDK's own.

    Raises:
        ConnectionError: no emulator answers there.
        MissingDependencyError: azure-ai-ml is not installed.
    """
    info = _info(url)
    _trust(info)
    try:
        # It warns at import of what it does itself with marshmallow: some turn warnings into errors.
        with warnings.catch_warnings(action="ignore"):
            sdk: Any = import_module("azure.ai.ml")
            import_module("azure.ai.ml.entities")
    except ImportError as error:
        message = "The client needs the package azure-ai-ml, which is not installed."
        fix = "Run: pip install 'gpu-infer[online]'"
        raise MissingDependencyError([Finding("error", "missing-extra", message, fix)]) from error
    with _lock:
        # Read once, when the client is made: another client of this process may go to Azure, or to another emulator.
        before = os.environ.get(_ARM)
        os.environ[_ARM] = info["tls_url"]
        try:
            return sdk.MLClient(_Credential(info), info["subscription_id"], info["resource_group"], info["name"])
        finally:
            if before is None:
                del os.environ[_ARM]
            else:
                os.environ[_ARM] = before


def credential(url: str) -> Any:
    """What any client of Azure signs in with at the emulator; has this process trust its certificate.

    Args:
        url: ``Emulator.url``.

    Raises:
        ConnectionError: no emulator answers there.
    """
    info = _info(url)
    _trust(info)
    return _Credential(info)


_ARM = "AZUREML_DEV_URL_MFE"
"""Where azure-ai-ml looks for Azure Resource Manager."""


class _Credential:
    """What azure-ai-ml signs in with: has a token for whatever it is asked for."""

    def __init__(self, info: _Info) -> None:
        self._info = info

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        from azure.core.credentials import AccessToken

        from .aad.models import LIFETIME

        audience = scopes[0].removesuffix("/.default") if scopes else ""
        return AccessToken(_token(self._info, audience), int(time.time() + LIFETIME))


def variables(url: str, *, mode: Mode = "subclass") -> dict[str, str]:
    """Environment variables for a process that is to reach the emulator, to be set before it imports ``azureml.core``.

    Args:
        url: ``Emulator.url``.
        mode: see this module's text.

    Raises:
        ConnectionError: no emulator answers there.
        ValueError: there is no such mode.
    """
    return _variables(_info(url), mode)


_TRUST = ("REQUESTS_CA_BUNDLE", "NO_PROXY", "no_proxy")


def _variables(info: _Info, mode: Mode) -> dict[str, str]:
    if mode not in get_args(Mode):
        raise ValueError(f"There is no mode {mode!r}. There are: {', '.join(get_args(Mode))}.")
    without = _without_proxy(os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "")
    found = {"REQUESTS_CA_BUNDLE": info["ca_file"], "NO_PROXY": without, "no_proxy": without}
    if mode == "environment":
        # A folder that does not exist: in one that does, the SDK would keep the address for ever.
        found |= {"ARM_CLOUD_METADATA_URL": f"{info['url']}/metadata/endpoints", "AZURE_CONFIG_DIR": info["no_config"]}
    elif mode == "proxy":
        found |= {"HTTPS_PROXY": info["url"], "https_proxy": info["url"]}
    return found


def _without_proxy(before: str) -> str:
    names = [name for name in before.split(",") if name.strip()]
    return ",".join(names if _HOST in names else [*names, _HOST])


def _info(url: str) -> _Info:
    request = urllib.request.Request(f"{url.rstrip('/')}/_emulator")  # noqa: S310 (checked below)
    if request.type not in ("http", "https") or request.host.partition(":")[0] not in (_HOST, "localhost"):
        raise ValueError(f"{url!r} is no emulator's address: they look like http://127.0.0.1:8787.")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return json.load(response)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"No emulator answers at {url}: {error}. Start one with `gpu-infer emulator`, or with Emulator().start()."
        ) from error


def _trust(info: _Info) -> None:
    with _lock:
        for name, value in _variables(info, "subclass").items():
            _before.setdefault(name, os.environ.get(name))
            os.environ[name] = value


def remember(ca_file: Path) -> None:
    """An emulator of this process begins to use this file."""
    with _lock:
        _running[str(ca_file)] = _running.get(str(ca_file), 0) + 1


def forget(ca_file: Path) -> None:
    """An emulator of this process uses it no more; after the last one the environment is as it was."""
    with _lock:
        left = _running.get(str(ca_file), 1) - 1
        _running[str(ca_file)] = left
        if left > 0 or os.environ.get("REQUESTS_CA_BUNDLE") != str(ca_file):
            return
        for name, value in _before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _before.clear()


def _authentication(info: _Info, mode: Mode) -> Any:
    from azureml.core import authentication

    sdk: Any = authentication
    if mode == "proxy":
        return sdk.ServicePrincipalAuthentication(info["tenant_id"], info["client_id"], info["client_secret"])
    if mode == "environment":
        from .arm.models import CLOUD

        return sdk.TokenAuthentication(partial(_token, info), cloud=CLOUD)
    return _subclass()(info)


def _subclass() -> Any:
    """The SDK's abstract class with what it leaves open filled in. Made here, so that the SDK is imported late."""
    from azureml._vendor.azure_cli_core.cloud import Cloud, CloudEndpoints
    from azureml.core import authentication

    sdk: Any = authentication
    cloud: Any = Cloud
    endpoints: Any = CloudEndpoints

    class EmulatorAuthentication(sdk.AbstractAuthentication):
        """Says that Azure is at the emulator's address."""

        def __init__(self, info: _Info) -> None:
            sdk.AbstractAuthentication.__init__(self, cloud="AzureCloud")  # a known name: for others the SDK asks Azure
            self._info = info
            self._cloud_type = cloud(
                "AzureMLEmulator",
                endpoints=endpoints(
                    resource_manager=info["url"],
                    management=info["url"],
                    active_directory_resource_id=info["url"],
                    portal="https://portal.azure.com",
                ),
            )

        def _get_arm_token(self) -> str:
            return _token(self._info)

        def _get_graph_token(self) -> str:
            return _token(self._info)

        def _get_azureml_client_token(self) -> str:
            return _token(self._info)

        def _get_all_subscription_ids(self) -> Any:
            return [sdk._SubscriptionInfo("emulator", self._info["subscription_id"])], self._info["tenant_id"]  # noqa: SLF001 (the SDK's own type for this)

        def _get_workspace(self, subscription_id: str, resource_group: str, name: str) -> None:
            """Let the SDK ask for the workspace."""

    return EmulatorAuthentication


def _token(info: _Info, audience: str = "") -> str:
    from .aad.models import token

    return token(b"client", tenant=info["tenant_id"], audience=audience or info["url"], subject=info["client_id"])
