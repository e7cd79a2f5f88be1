"""The second tutorial's entry script: rows of 784 numbers in JSON, their digits back."""

import json
import os

import numpy as np
import tensorflow as tf
from azureml.core.model import Model


def init():
    global X, output, sess
    # The tutorial's TensorFlow 1 had graphs only.
    tf.compat.v1.disable_eager_execution()
    tf.compat.v1.reset_default_graph()
    model_root = Model.get_model_path("tf-dnn-mnist")
    saver = tf.compat.v1.train.import_meta_graph(os.path.join(model_root, "mnist-tf.model.meta"))
    X = tf.compat.v1.get_default_graph().get_tensor_by_name("network/X:0")
    output = tf.compat.v1.get_default_graph().get_tensor_by_name("network/output/MatMul:0")

    sess = tf.compat.v1.Session()
    saver.restore(sess, os.path.join(model_root, "mnist-tf.model"))


def run(raw_data):
    data = np.array(json.loads(raw_data)["data"])
    # make prediction
    out = output.eval(session=sess, feed_dict={X: data})
    y_hat = np.argmax(out, axis=1)
    return y_hat.tolist()
