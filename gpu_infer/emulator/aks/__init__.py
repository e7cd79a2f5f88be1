"""Azure Kubernetes Service: clusters that are made without Azure ML, and those that Azure ML has made."""
