"""Checks that cost nothing, run before anything that does. ``docs/preflight.md`` lists them all.

What a check must know of a workspace is handed in as data (``WorkspaceFacts``, ``OnlineFacts``): no Azure package is
imported here.
"""

from gpu_infer.preflight.aks import check_aks, check_container, check_room
from gpu_infer.preflight.clusters import check_cluster, check_way, makes_cluster
from gpu_infer.preflight.common import choose_template, find_local_model, script_template, template_of_files
from gpu_infer.preflight.conda_files import lint_conda
from gpu_infer.preflight.container import without_port
from gpu_infer.preflight.facts import ClusterFacts, OnlineFacts, WorkspaceFacts
from gpu_infer.preflight.kubernetes import choose_instance_type
from gpu_infer.preflight.local import check_local
from gpu_infer.preflight.online import check_online, without_runtime
from gpu_infer.preflight.vm_sizes import resolve_size

__all__ = [
    "ClusterFacts",
    "OnlineFacts",
    "WorkspaceFacts",
    "check_aks",
    "check_cluster",
    "check_container",
    "check_local",
    "check_online",
    "check_room",
    "check_way",
    "choose_instance_type",
    "choose_template",
    "find_local_model",
    "lint_conda",
    "makes_cluster",
    "resolve_size",
    "script_template",
    "template_of_files",
    "without_port",
    "without_runtime",
]
