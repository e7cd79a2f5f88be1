"""All routes of the emulator."""

from __future__ import annotations

from .aad.routes import ROUTES as AAD
from .aks.routes import ROUTES as AKS
from .arm.routes import ROUTES as ARM
from .artifacts.routes import ROUTES as ARTIFACTS
from .assets.registry import ROUTES as REGISTRY
from .assets.routes import ROUTES as ASSETS
from .assets.storage import ROUTES as STORAGE
from .compute.region import ROUTES as REGION
from .compute.region import USAGES
from .compute.routes import ROUTES as COMPUTE
from .insights.routes import ROUTES as INSIGHTS
from .models.routes import ROUTES as MODELS
from .online.deployments import ROUTES as DEPLOYMENTS
from .online.lro import ROUTES as ONLINE_OPERATIONS
from .online.routes import ROUTES as ENDPOINTS
from .online.scoring import ROUTES as ENDPOINT_SCORING
from .routing import Table
from .services.routes import ROUTES as SERVICES
from .services.scoring import ROUTES as SCORING

__all__ = ["MANAGEMENT", "ONLINE", "TABLE"]

ONLINE = (*USAGES, *ENDPOINTS, *DEPLOYMENTS, *ONLINE_OPERATIONS, *ASSETS, *REGISTRY, *STORAGE)
"""What azureml-core does not ask for, but azure-ai-ml does."""

MANAGEMENT = (*INSIGHTS, *AKS)
"""What neither asks for, but Azure's clients of other services: azure-mgmt-monitor, azure-mgmt-containerservice."""

TABLE = Table(
    (*ARM, *AAD, *COMPUTE, *REGION, *ARTIFACTS, *MODELS, *SERVICES, *SCORING, *ONLINE, *MANAGEMENT, *ENDPOINT_SCORING)
)
