"""Azure Resource Manager: the workspace itself, discovery, subscriptions and the metadata of the cloud."""
