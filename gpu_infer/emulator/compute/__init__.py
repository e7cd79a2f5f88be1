"""Compute: AKS clusters of the workspace, their nodes and GPUs."""
