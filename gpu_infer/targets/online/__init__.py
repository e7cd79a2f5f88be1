"""Online endpoints through ``azure-ai-ml``: the only room that imports the SDK v2."""

from __future__ import annotations

from gpu_infer.targets.online.connecting import client_from
from gpu_infer.targets.online.target import OnlineTarget

__all__ = ["OnlineTarget", "client_from"]
