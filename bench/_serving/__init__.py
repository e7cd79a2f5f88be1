"""The benchmark of whole servers, see ``bench/serving.py``: who runs, on what, how it is measured and shown."""
