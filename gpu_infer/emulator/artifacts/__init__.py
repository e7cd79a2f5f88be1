"""The artifact service and the blob storage behind it."""
