"""Azure Monitor: autoscale settings of the resource group, and how many requests endpoints have had."""
