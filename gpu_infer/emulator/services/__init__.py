"""Model management: web services on AKS."""
