"""What Azure and its SDKs say, and what it means: the table behind ``azure_error`` and ``docs/errors.md``.

Sources: azureml-core 1.61 and azure-ai-ml 1.35 as they behave against a server that answers each way (their exceptions
and texts), Microsoft's troubleshooting pages (azure-ai-docs), and issues of Azure/MachineLearningNotebooks where bodies
of Azure itself are quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_infer.errors import (
    DeploymentError,
    DeploymentTimeoutError,
    GpuInferError,
    ImageBuildError,
    InsufficientGpuError,
    OverloadedError,
    QuotaError,
    ScoringInitError,
    ServiceNotFoundError,
)

__all__ = ["LATE", "TEXTS", "Meaning"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row.

    Args:
        said: how it is recognised, in words for the reader.
        because: what it means.
        do: the next step.
        pattern: regular expression that recognises it, ignoring case; empty where the status or class does.
        error: what it becomes; ``None``: what the caller was about (``ProvisioningError``, ``DeploymentError``, ...).
        arithmetic: which numbers are read out of the text: ``quota`` or ``gpu``.
    """

    said: str
    because: str
    do: str
    pattern: str = ""
    error: type[GpuInferError] | None = None
    arithmetic: str = ""


_PORTAL_QUOTA = "Ask for more in the Azure portal under Quotas, take a smaller size or fewer nodes, or another region."

LATE = Meaning(
    "nothing, and the service is not healthy when the time of `wait=` is over",
    "It was not healthy in time, and has not failed either: a large model, a slow init(), or an image that is still "
    "being built or fetched.",
    "Give it longer: deploy(wait=SECONDS), or service.wait(timeout=SECONDS) where it is there already.",
    error=DeploymentTimeoutError,
)


TEXTS: tuple[Meaning, ...] = (  # the first that matches, so the special before the general
    Meaning(
        "`0/3 nodes are available: 3 Insufficient nvidia.com/gpu.`",
        "No node has a GPU free: more replicas than GPUs, another service holds them, or the nodes have none.",
        "Lower replicas=, remove a service (gpu_infer.services(workspace) lists them), or take more nodes.",
        r"Insufficient nvidia\.com/gpu",
        InsufficientGpuError,
        "gpu",
    ),
    Meaning(
        "`InferenceConfig ... expects a GPU ... cluster without a GPU` (refused before the deployment)",
        "The service asks for a GPU, and the nodes of the cluster have none.",
        "Deploy to a cluster of a GPU size, such as Cluster('aks-gpu', vm_size='Standard_NC4as_T4_v3').",
        r"(?:expects?|requires?|asks for|enabled?) (?:a )?GPUs?\b.*(?:\bno\b|\bnot\b|without)|"
        r"(?:does not have|has no|have no) (?:a |any )?GPU",
        InsufficientGpuError,
    ),
    Meaning(
        "`Current usage/limit: 0/6. Additional needed: 8`, `QuotaExceeded`, `OutOfQuota`",
        "The subscription's quota of cores for this family of VM sizes does not cover it.",
        _PORTAL_QUOTA + " GPU families begin with a quota of 0.",
        r"QuotaExceeded|OutOfQuota|exceeding approved .* quota|Not enough quota|not have enough quota|vCPU quota of|"
        r"Current usage/limit|Quota reached",
        QuotaError,
        "quota",
    ),
    Meaning(
        "`... is not a supported VM size`, `VMSizeNotSupported`",
        "Azure has retired this VM size, or the region does not have it.",
        "Take a current one, such as vm_size='Standard_NC4as_T4_v3'; gpu_infer.plan(...) names the successor.",
        r"not a supported VM ?size|VMSizeNotSupported|requested VM size .* not available",
    ),
    Meaning(
        "`SkuNotAvailable`, `AllocationFailed`, `OverconstrainedAllocationRequest`, `OutOfCapacity`",
        "The region has no machine of this size free at the moment: quota is a permission, not a machine.",
        "Try again later, or take another size or region.",
        r"SkuNotAvailable|AllocationFailed|OverconstrainedAllocation|capacity restrictions?|OutOfCapacity|"
        r"lack of Azure Machine Learning capacity",
    ),
    Meaning(
        "`... belongs to a specialty Sku. It requires your subscription to be whitelisted`",
        "This VM size is only given to subscriptions that have asked for it.",
        "Ask Azure support for it, or take another size.",
        r"specialty Sku|to be whitelisted",
    ),
    Meaning(
        "`... Basic Load Balancer ...`",
        "Azure no longer makes clusters with the load balancer that Azure ML gives them (retired 2025-09-30).",
        'Cluster(..., how="aks"), or provision_cluster(ws, ..., how="aks"), has AKS itself make it, and attaches it.',
        r"Basic.{0,12}Load ?Balancer",
    ),
    Meaning(
        "`Creation of Online Endpoints or deployments on AKS compute type is no longer supported`",
        "Online endpoints do not run on an AKS cluster that was made or attached the old way.",
        "Hand in an azureml.core.Workspace for AKS web services.",
        r"no longer supported.*AKS compute|on AKS compute type is no longer",
    ),
    Meaning(
        "`ResolvePackageNotFound`, `CondaValueError`, `Solving environment: failed`, `pip failed`",
        "The packages of the conda file cannot be installed together, or one of them does not exist.",
        "gpu_infer.plan(..., conda_file=...) checks the file; pin versions that exist for Linux and this Python.",
        r"ResolvePackageNotFound|CondaValueError|CondaEnvException|Solving environment: failed|InvalidRequirement|"
        r"No matching distribution|ResolutionImpossible|Pip failed|Pip subprocess error",
        ImageBuildError,
    ),
    Meaning(
        '`The "tensorflow-gpu" package has been removed!`',
        "Since December 2022 the package tensorflow-gpu is an empty shell that only raises this error.",
        "Write tensorflow[and-cuda] under pip: in the conda file, or leave conda_file= out for ours.",
        r"tensorflow-gpu.{0,30}has been removed",
        ImageBuildError,
    ),
    Meaning(
        "`More information can be found here: https://...` (the operation was BuildImage)",
        "The container image could not be built.",
        "The build log is in the studio under Environments; gpu_infer.plan(..., conda_file=...) checks the conda file.",
        r"More information can be found here: ",
        ImageBuildError,
    ),
    Meaning(
        "`Docker image build failed.`, `ImageBuildFailed`, `EnvironmentBuildFailed`",
        "The container image could not be built.",
        "The build log is in the studio under Environments; gpu_infer.plan(..., conda_file=...) checks the conda file.",
        r"image build (?:has )?failed|ImageBuild|(?:Environment|Docker)Build(?:Failed|Error)|Build of image",
        ImageBuildError,
    ),
    Meaning(
        "`ErrImagePull`, `ImagePullBackOff`",
        "The nodes could not fetch the container image: it is gone, or they may not read the registry.",
        "Check that the base image still exists and that the cluster has AcrPull on the workspace's registry.",
        r"ErrImagePull|ImagePullBackOff|FailedToPullImage",
        ImageBuildError,
    ),
    Meaning(
        "`OOMKilled`, `PodOutOfMemory`",
        "The container used more main memory than it was given and was stopped.",
        "Give more memory_gb=, or with an entry_script= fewer workers=, each of which loads the model.",
        r"OOMKilled|PodOutOfMemory|OutOfMemory",
        DeploymentError,
    ),
    Meaning(
        "`CrashLoopBackOff`, `Your container application crashed`, `probe failed with statuscode: 502`, "
        "`UserScriptInitFailed`",
        "The container starts and dies again and again: score.py fails on import or in init().",
        "service.logs() has the traceback; target='local' runs the same bundle on this machine.",
        r"CrashLoopBackOff|container (?:application )?(?:has )?crashed|ResourceNotReady|probe failed|"
        r"UserScript(?:ImportError|InitFailed|FunctionNotFound)",
        ScoringInitError,
    ),
    Meaning(
        "`Couldn't schedule ... after trying for 00:05:00`, `insufficient compute resource`, `Unschedulable`",
        "The nodes have too little room for the replicas: cores, memory or GPUs. Azure gives up after five minutes, "
        "which is less than a new node takes.",
        "Lower replicas=, cpu_cores= or memory_gb=, remove another service, or add nodes first.",
        r"after trying for|insufficient (?:compute|cpu|memory)|resource insufficient|Unschedulable|"
        r"didn't have available resources",
        DeploymentError,
    ),
    Meaning(
        "`DeploymentTimedOut`, `Deployment polling exceeded timeout override`",
        "The service was not healthy in time: a large model, a slow init(), or a container that keeps failing.",
        "The end of its log tells which; wait= gives it longer.",
        r"DeploymentTimedOut|polling exceeded timeout|state: TimedOut|terminal state, current service state: Unhealthy",
        DeploymentTimeoutError,
    ),
    Meaning(
        "`Too many requests for service ... (overloaded)`",
        "All replicas are busy and the queue of the service's router is full.",
        "Send fewer requests at once, or add replicas.",
        r"\(overloaded\)|Too many requests for service",
        OverloadedError,
    ),
    Meaning(
        "`... along with an environment object`",
        "An InferenceConfig takes an Environment or the older flags (enable_gpu, conda_file, runtime), not both.",
        "Leave the flags out; gpu_infer.build_inference_config() makes one that keeps the GPU.",
        r"along with an environment object",
    ),
    Meaning(
        "`WebserviceNotFound`",
        "The workspace has no service of this name.",
        "gpu_infer.services(workspace) lists what it has.",
        r"WebserviceNotFound",
        ServiceNotFoundError,
    ),
    Meaning(
        "`ComputeTargetNotFound`",
        "The workspace has no compute target of this name (any more).",
        "Check the name, or let Cluster(name, ...) create it.",
        r"ComputeTargetNotFound",
    ),
    Meaning(
        "`ModelNotFound`",
        "The workspace has no registered model of this name or version.",
        "Check both, or give the path of the model and it is registered.",
        r"ModelNotFound",
    ),
    Meaning(
        "`Workspace not found.`",
        "There is no such workspace, or this login does not see it.",
        "Check subscription, resource group and name (config.json), and the tenant you are logged in to.",
        r"Workspace not found|ResourceGroupNotFound|SubscriptionNotFound",
    ),
    Meaning(
        "`You are currently logged-in to ... tenant ... don't have access to ... subscription`",
        "This login has no access to the subscription.",
        "Log in to the right tenant: az login --tenant ..., or pass auth= to Workspace.",
        r"have access to .*subscription|subscription .* (?:not found|could not be found)|isn't in your subscriptions",
    ),
    Meaning(
        "`AADSTS700082`, `Please run 'az login'`, `AuthenticationException`, `... failed to retrieve a token`",
        "The login to Azure failed or has expired.",
        "Log in again (az login), or renew the service principal's secret.",
        r"AADSTS\d+|az login|AuthenticationException|authentication failed|Could not retrieve user token|"
        r"Get Token request returned http error|failed to retrieve a token",
    ),
    Meaning(
        "`... must be unique per cluster`",
        "The cluster still knows an endpoint of this name: deleting one takes a while.",
        "Wait a few minutes, or take another name.",
        r"must be unique per cluster",
    ),
    Meaning(
        "`An online endpoint named ... exists already in this region`",
        "The name of an endpoint belongs to one workspace of a region, and another workspace has this one.",
        "Take another name=.",
        r"(?:exists already|already exists|already (?:taken|used|in use)|must be unique) (?:with)?in "
        r"(?:this|the|an) (?:Azure )?region",
    ),
    Meaning(
        "`BlobAlreadyExists`",
        "The upload met a file that is there already.",
        "Repeat the call.",
        r"BlobAlreadyExists|specified blob already exists",
    ),
    Meaning(
        "`There is already an active operation on ...`",
        "Azure is still working on it: on what this or another call has asked for before.",
        "Wait until that has ended, then repeat the call.",
        r"already an active operation|another operation .{0,60}(?:is )?in progress",
    ),
    Meaning(
        "`DeletionRequired`: the model is used by a service",
        "A service still uses this model, so Azure keeps it.",
        "Delete the service first.",
        r"DeletionRequired",
    ),
    Meaning(
        "`Long running operation information not known, unable to poll`",
        "The SDK can only wait for what the same object has begun; this one was looked up by its name.",
        "Read its state instead: service.state, or compute.get_status().",
        r"Long running operation information not known",
    ),
    Meaning(
        "`scoring_uri unavailable`",
        "The service has no address: it never became healthy.",
        "service.logs() tells why.",
        r"scoring_uri unavailable",
    ),
    Meaning(
        "`Failed to resolve`, `Name or service not known`",
        "The name of an Azure host could not be resolved.",
        "Check the network, the VPN, and private endpoints of the workspace.",
        r"Failed to resolve|Name or service not known|getaddrinfo failed|nodename nor servname|name resolution",
    ),
    Meaning(
        "`CERTIFICATE_VERIFY_FAILED`",
        "The certificate of the Azure host, or of a proxy in between, is not trusted here.",
        "Set REQUESTS_CA_BUNDLE to the file with your proxy's certificate authority.",
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|SSLCertVerification",
    ),
    Meaning(
        "`KeyError: 'azure-asyncoperation'`",
        "Azure answered a deletion without the header that the SDK reads: what was to be deleted is gone already.",
        "There is nothing to do; gpu_infer.leftovers(workspace) shows what is there.",
        r"^(?:KeyError: )?'?azure-asyncoperation'?$",
    ),
    Meaning(
        "`'NoneType' object has no attribute ...` (from the SDK)",
        "The SDK went on after a request of its own had failed, was given an InferenceConfig it cannot read, or missed "
        "something in an answer of Azure.",
        "Try again; make the Workspace or MLClient anew where Azure could not be reached when it was made.",
        r"'NoneType' object has no attribute",
    ),
    Meaning(
        "`terminal state, ... Canceled`, `(Canceled) ...`",
        "The operation was cancelled, by Azure or by somebody with access to the workspace.",
        "Repeat the call.",
        r"terminal state, .*(?:Canceled|Cancelled)|^\((?:Canceled|Cancelled)\)",
    ),
    Meaning(
        "`Response Code: None`",
        "Azure refused the request, and the SDK has not kept why.",
        "Check the login (az login) and the names; then repeat the call.",
        r"Response Code: None",
    ),
    Meaning(
        "`Error, missing operation location from resp headers`",
        "Azure took the request and its answer was cut short: what was asked for may exist.",
        "gpu_infer.leftovers(workspace) shows what exists; then repeat the call.",
        r"missing operation location|Missing response header key: Operation-Location",
    ),
    Meaning(
        "`... is a reserved name.`",
        "Azure ML keeps this name for itself.",
        "Take another one, such as 'aks-gpu'.",
        r"is a reserved name",
    ),
    Meaning(
        "`Invalid configuration, ...`, `Provided runtime not supported`, `Error, need to specify entry_script`",
        "The SDK refuses the configuration before it sends anything.",
        "Correct what it names.",
        r"Invalid configuration|Error, (?:unable to provide|need to specify|only one of)|Provided \w+ not supported|"
        r"script .{0,200}(?:not found|does not exist|syntax error|invalid syntax)|agent count must be",
    ),
)
