"""Model management: registered models and the assets that hold their files."""
