"""Assets as ``azure-ai-ml`` knows them: versions of models, environments and code, and datastores with their files."""
