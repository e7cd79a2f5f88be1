"""Wire of what a region offers: VM sizes, and how much of the quota is left."""

from __future__ import annotations

import math
from typing import Any

from ... import catalog
from ..online.claims import claims
from ..routing import Route
from ..state import State
from ..wire import Request, Response, answer
from .quota import is_offered

__all__ = ["ROUTES", "USAGES"]

_LOCATIONS = "/subscriptions/<sub>/providers/Microsoft.MachineLearningServices/locations/<location>"


def _sizes(_state: State, _request: Request) -> Response:
    """The list twice: ``amlCompute`` is what azureml-core reads, ``value`` what azure-ai-ml reads."""
    value = [_size(size) for size in catalog.sizes() if is_offered(size)]
    return answer({"amlCompute": value, "value": value})


def _size(size: catalog.VmSize) -> dict[str, Any]:
    price = {"osType": "Linux", "retailPrice": size.price_per_hour, "vmTier": "Standard"}
    return {
        "name": size.name,
        "family": size.family,
        "vCPUs": size.vcpus,
        "gpus": math.ceil(size.gpus),
        "memoryGB": size.memory_gb,
        "osVhdSizeMB": 1047552,
        "maxResourceVolumeMB": 51200,
        "lowPriorityCapable": True,
        "premiumIO": True,
        "estimatedVMPrices": {
            "billingCurrency": "USD",
            "unitOfMeasure": "OneHour",
            "values": [price] if size.price_per_hour is not None else [],
        },
        "supportedComputeTypes": ["AmlCompute", "ComputeInstance", *(["MIR"] if size.managed else [])],
    }


def _usages(state: State, request: Request) -> Response:
    found = state.quota.usages(
        claims(state), subscription_id=state.settings.subscription_id, location=request.args["location"]
    )
    return answer({"value": found})


ROUTES = (Route("GET", f"{_LOCATIONS}/vmSizes", "compute.sizes", _sizes, "arm"),)

USAGES = (Route("GET", f"{_LOCATIONS}/usages", "compute.usages", _usages, "arm"),)
"""What only azure-ai-ml asks for."""
