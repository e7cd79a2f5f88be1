"""The model as MLServer runs it; ``mlserver_server.py`` starts it."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from onnx_model import Network, batch_of, setting, top5

mlserver: Any = import_module("mlserver")
codecs: Any = import_module("mlserver.codecs")

IMAGES = setting("WORKLOAD") == "images"


class Model(mlserver.MLModel):
    """Rows or pictures in, logits or the five best classes out."""

    async def load(self) -> bool:
        """Load the model."""
        self.network = Network(setting("MODEL"), threads=int(setting("CORES")) if IMAGES else 1)
        return True

    async def predict(self, payload: Any) -> Any:
        """Answer a batch, which MLServer has put together and takes apart again."""
        if IMAGES:
            pictures = batch_of(codecs.Base64Codec.decode_input(payload.inputs[0]))
            found = [json.dumps(top5(row)) for row in self.network.run(pictures)]
            output = codecs.StringCodec.encode_output("top5", found)
        else:
            rows = codecs.NumpyCodec.decode_input(payload.inputs[0])
            output = codecs.NumpyCodec.encode_output("logits", self.network.run(rows))
        return mlserver.types.InferenceResponse(model_name=self.name, outputs=[output])
