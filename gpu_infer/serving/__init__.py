"""What runs inside the container, and nothing else does.

The bundle copies this folder as the package ``gpu_infer_serving`` beside ``score.py``. It imports nothing of the rest
of the library, needs only NumPy, orjson, Pillow and the model's framework, and stays readable by Python 3.9.
"""
