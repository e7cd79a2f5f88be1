"""The measurement of scoring clients, see ``bench/client.py``: bodies, ways to call, and who answers."""
