"""The first tutorial's entry script: a JPEG in the request's body, 1,000 probabilities back."""

import json

import tensorflow as tf
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse
from azureml.core.model import Model


def init():
    global session
    global input_name
    global output_name

    session = tf.compat.v1.Session()

    model_path = Model.get_model_path("resnet50")
    model = tf.compat.v1.saved_model.loader.load(session, ["serve"], model_path)
    signature = model.signature_def["serving_default"]
    if len(signature.inputs) > 1:
        raise ValueError("This score.py only supports one input")
    input_name = next(tensor.name for tensor in signature.inputs.values())
    # By name: in which order a signature's outputs come is not said anywhere.
    output_name = [signature.outputs[name].name for name in ("classes", "probabilities")]


@rawhttp
def run(request):
    if request.method == "POST":
        request_body = request.get_data(False)
        return AMLResponse(score(request_body), 200)
    if request.method == "GET":
        return AMLResponse(b"GET is not supported", 405)
    return AMLResponse("bad request", 500)


def score(data):
    result = session.run(output_name, {input_name: [data]})
    return json.dumps(result[1].tolist())
