"""An Azure ML workspace on 127.0.0.1 for the real, unpatched SDK: for tests of deployment code, without a subscription.

::

    from gpu_infer.emulator import Emulator

    with Emulator() as emulator:
        ws = emulator.workspace()  # an azureml.core.Workspace; everything of azureml-core that AKS needs works on it

``emulator.ml_client()`` is an ``azure.ai.ml.MLClient`` for the same workspace: online endpoints and their deployments,
models, environments, Kubernetes clusters. ``emulator.credential()`` is for Azure's other clients.

Three ways lead there; :func:`workspace` takes the first and says how the others go. :class:`Fault` makes any call fail,
:class:`Transition` makes operations take time, ``emulator.requests`` is the log of all calls.
"""

from __future__ import annotations

from .connect import ml_client, variables, workspace
from .emulator import Emulator
from .faults import Fault, LoggedRequest
from .operations import Transition

__all__ = ["Emulator", "Fault", "LoggedRequest", "Transition", "ml_client", "variables", "workspace"]
