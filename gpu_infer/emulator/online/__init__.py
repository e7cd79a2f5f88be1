"""Online endpoints of ``azure-ai-ml``: what ``online_endpoints.invoke`` asks for, over running containers."""
