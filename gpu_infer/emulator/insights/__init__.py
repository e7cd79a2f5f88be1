"""Azure Monitor: autoscale settings of the resource group."""
