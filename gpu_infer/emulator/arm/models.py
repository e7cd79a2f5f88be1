"""What the workspace, its subscription and its cloud are: it never changes while the emulator runs."""

from __future__ import annotations

from typing import Any, TypedDict

__all__ = ["CLOUD", "Ids", "cloud", "discovery", "subscription", "workspace"]

CLOUD = "AzureMLEmulator"
"""The name of the cloud for ``TokenAuthentication(..., cloud=...)``."""


class Ids(TypedDict):
    """What names a workspace."""

    subscription_id: str
    resource_group: str
    name: str
    location: str
    workspace_id: str
    tenant_id: str


def workspace(ids: Ids, scope: str, discovery_url: str) -> dict[str, Any]:
    """The workspace's own resource."""
    providers = f"/subscriptions/{ids['subscription_id']}/resourceGroups/{ids['resource_group']}/providers"
    return {
        "id": scope,
        "name": ids["name"],
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": ids["location"],
        "tags": {},
        "identity": {"type": "SystemAssigned", "tenantId": ids["tenant_id"], "principalId": ids["workspace_id"]},
        "sku": {"name": "Basic", "tier": "Basic"},
        "properties": {
            "workspaceId": ids["workspace_id"],
            "friendlyName": ids["name"],
            "description": "A workspace of the gpu_infer emulator",
            "discoveryUrl": discovery_url,
            "provisioningState": "Succeeded",
            "storageAccount": f"{providers}/Microsoft.Storage/storageAccounts/emuacct",
            "keyVault": f"{providers}/Microsoft.KeyVault/vaults/emulator",
            "applicationInsights": f"{providers}/Microsoft.Insights/components/emulator",
            "containerRegistry": None,
            "hbiWorkspace": False,
            "publicNetworkAccess": "Enabled",
        },
    }


def discovery(base: str) -> dict[str, str]:
    """Where the workspace's services are: all of them here."""
    names = ("api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio")
    return dict.fromkeys(names, base)


def subscription(ids: Ids) -> dict[str, Any]:
    """The one subscription."""
    return {
        "id": f"/subscriptions/{ids['subscription_id']}",
        "subscriptionId": ids["subscription_id"],
        "tenantId": ids["tenant_id"],
        "displayName": "gpu_infer emulator",
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "Emulator",
            "spendingLimit": "Off",
        },
    }


def cloud(tls_url: str, tenant_id: str) -> dict[str, Any]:
    """The emulator as a cloud of its own, as ``ARM_CLOUD_METADATA_URL`` announces clouds."""
    return {
        "name": CLOUD,
        "portal": "https://portal.azure.com",
        "resourceManager": tls_url,
        "graphAudience": "https://graph.windows.net/",
        "graph": "https://graph.windows.net/",
        "gallery": "https://gallery.azure.com/",
        "batch": "https://batch.core.windows.net/",
        "media": "https://rest.media.azure.net",
        "sqlManagement": "https://management.core.windows.net:8443/",
        "vmImageAliasDoc": "",
        "activeDirectoryDataLake": "https://datalake.azure.net/",
        "authentication": {
            "loginEndpoint": tls_url,
            "audiences": [tls_url, "https://management.azure.com/"],
            "tenant": tenant_id,
            "identityProvider": "AAD",
        },
        "suffixes": {
            "storage": "core.windows.net",
            "keyVaultDns": "vault.azure.net",
            "sqlServerHostname": "database.windows.net",
            "acrLoginServer": "azurecr.io",
            "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
            "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
        },
    }
