"""TensorFlow adapters: real models, and small ones made here for each way in which a model can be odd."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_infer.serving.adapters.base import Adapter, ModelFormatError
from gpu_infer.serving.device import NoGpuError, gpu_report, require_gpu

tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed")
v1 = tf.compat.v1

LoadModel = Callable[..., Adapter]
Mnist = tuple[np.ndarray, np.ndarray]


def jpegs(*items: bytes) -> np.ndarray:
    batch = np.empty(len(items), dtype=object)
    batch[:] = items
    return batch


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.argmax(axis=1) == labels).mean())


# --- SavedModel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0(shared_models: Path, load_model: LoadModel) -> Adapter:
    return load_model(shared_models / "efficientnet_lite0_jpg_savedmodel")


def test_the_first_tutorials_model(lite0: Adapter, snowleopard: Path) -> None:
    assert str(lite0.input) == "image_bytes: bytes [N]"
    assert [str(spec) for spec in lite0.outputs] == ["classes: int64 [N]", "probabilities: float32 [N, 1000]"]
    result = lite0.predict(jpegs(*[snowleopard.read_bytes()] * 3), ["classes", "probabilities"])
    assert result["classes"].tolist() == [289] * 3
    assert result["probabilities"].shape == (3, 1000)
    assert result["probabilities"][:, 289] == pytest.approx([0.837] * 3, abs=0.01)


def test_only_wanted_outputs_come_back(lite0: Adapter, snowleopard: Path) -> None:
    assert list(lite0.predict(jpegs(snowleopard.read_bytes()), ["classes"])) == ["classes"]


def test_what_is_no_image_is_the_inputs_fault(lite0: Adapter, snowleopard: Path) -> None:
    for bad in (b"no image", b"", snowleopard.read_bytes()[:200]):
        with pytest.raises(lite0.invalid_input_errors):
            lite0.predict(jpegs(bad), ["classes"])


def test_another_thread_may_call(lite0: Adapter, snowleopard: Path) -> None:
    seen: list[int] = []
    batch = jpegs(snowleopard.read_bytes())
    thread = threading.Thread(target=lambda: seen.append(int(lite0.predict(batch, ["classes"])["classes"][0])))
    thread.start()
    thread.join(60)
    assert seen == [289]


def test_a_saved_model_of_tensorflow_1(shared_models: Path, load_model: LoadModel, mnist_test: Mnist) -> None:
    adapter = load_model(shared_models / "mnist_savedmodel")
    assert str(adapter.input) == "X: float32 [N, 784]"
    images, labels = mnist_test
    assert accuracy(adapter.predict(images, ["logits"])["logits"], labels) == 0.9625


class Pair(tf.Module):
    """Signatures for every case below."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable([[2.0], [3.0]], name="weight")

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def double(self, x: Any) -> dict[str, Any]:
        return {"y": x @ self.weight, "total": tf.reduce_sum(x), "half": tf.cast(x, tf.bfloat16)}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], name="left"), tf.TensorSpec([None, 2], name="right")])
    def two(self, left: Any, right: Any) -> dict[str, Any]:
        return {"y": left + right}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def scalar(self, x: Any) -> dict[str, Any]:
        return {"y": x}

    @tf.function(input_signature=[tf.TensorSpec([4, 2], tf.bfloat16, name="x")])
    def fixed(self, x: Any) -> dict[str, Any]:
        return {"name": tf.strings.as_string(tf.cast(x, tf.float32))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "pair"
    module = Pair()
    signatures = {"double": module.double, "two": module.two, "scalar": module.scalar, "fixed": module.fixed}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def test_several_signatures_are_listed(pair: Path, load_model: LoadModel) -> None:
    with pytest.raises(ModelFormatError, match="has 4 signatures and no default. It has: double, fixed, scalar, two"):
        load_model(pair)
    with pytest.raises(ModelFormatError, match="has no signature 'three'"):
        load_model(pair, signature="three")


def test_several_inputs_are_named(pair: Path, load_model: LoadModel) -> None:
    with pytest.raises(ModelFormatError) as caught:
        load_model(pair, signature="two")
    assert "2 inputs (left: float32 [N, 2]; right: float32 [N, 2])" in str(caught.value)
    assert "entry_script=" in str(caught.value)


def test_an_input_without_a_batch_axis(pair: Path, load_model: LoadModel) -> None:
    with pytest.raises(ModelFormatError, match="x: float32 \\[\\] is a single value"):
        load_model(pair, signature="scalar")


def test_outputs_of_a_signature(pair: Path, load_model: LoadModel) -> None:
    adapter = load_model(pair, signature="double")
    assert [str(spec) for spec in adapter.outputs] == ["half: float32 [N, 2]", "total: float32 []", "y: float32 [N, 1]"]
    result = adapter.predict(np.array([[1, 10], [0.5, 0]], np.float32), ["y", "half"])
    assert result["y"].tolist() == [[32.0], [1.0]]
    assert result["half"].dtype == np.float32
    with pytest.raises(ModelFormatError, match=r"'total' has the shape \[\] for a batch of 2.*there is y"):
        adapter.predict(np.zeros((2, 2), np.float32), ["total", "y"])
    with pytest.raises(ModelFormatError, match="no output z. It has: half, total, y"):
        load_model(pair, signature="double", output_names=("z",))


def test_a_fixed_batch_bfloat16_and_strings(pair: Path, load_model: LoadModel) -> None:
    adapter = load_model(pair, signature="fixed")
    assert (adapter.input.dtype, adapter.input.fixed_batch) == ("float32", 4)
    names = adapter.predict(np.ones((4, 2), np.float32), ["name"])["name"]
    assert names.shape == (4, 2)
    assert isinstance(names[0, 0], bytes)


def test_no_signature(tmp_path: Path, load_model: LoadModel) -> None:
    module = tf.Module()
    module.value = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "m"))
    with pytest.raises(ModelFormatError, match="has no signature, so nothing says what goes in"):
        load_model(tmp_path)


def test_assets_and_tables(tmp_path: Path, load_model: LoadModel) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")

    class Labels(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            reader = tf.lookup.TextFileInitializer(
                tf.saved_model.Asset(str(tmp_path / "labels.txt")), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
            )  # fmt: skip
            self.table = tf.lookup.StaticHashTable(reader, "?")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="index")])
        def look_up(self, index: Any) -> dict[str, Any]:
            return {"label": self.table.lookup(index)}

    module = Labels()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.look_up)
    (tmp_path / "labels.txt").unlink()
    adapter = load_model(tmp_path / "m")
    assert adapter.predict(np.array([1, 0, 9]), ["label"])["label"].tolist() == [b"dog", b"cat", b"?"]


def test_a_damaged_saved_model(tmp_path: Path, load_model: LoadModel) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01 nonsense")
    with pytest.raises(ModelFormatError, match="could not be loaded by TensorFlow"):
        load_model(tmp_path)


# --- Keras 3 ----------------------------------------------------------------------------------------------------------


def test_keras(tmp_path: Path, load_model: LoadModel) -> None:
    inputs = keras.Input((4,), name="features")
    hidden = keras.layers.Dropout(0.9)(keras.layers.BatchNormalization()(inputs))
    model = keras.Model(inputs, {"score": keras.layers.Dense(3, name="score")(hidden), "raw": hidden})
    model.save(tmp_path / "m.keras")
    adapter = load_model(tmp_path)
    assert str(adapter.input) == "features: float32 [N, 4]"
    assert [str(spec) for spec in adapter.outputs] == ["score: float32 [N, 3]", "raw: float32 [N, 4]"]
    batch = np.ones((2, 4), np.float32)
    result = adapter.predict(batch, ["score"])
    assert result["score"] == pytest.approx(np.asarray(model(batch, training=False)["score"]), abs=1e-6)


def test_keras_sequential(tmp_path: Path, load_model: LoadModel) -> None:
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="last")]).save(tmp_path / "m.keras")
    adapter = load_model(tmp_path)
    assert [spec.name for spec in adapter.outputs] == ["last"]
    assert adapter.predict(np.ones((5, 4), np.float32), ["last"])["last"].shape == (5, 3)


def test_keras_with_two_inputs(tmp_path: Path, load_model: LoadModel) -> None:
    inputs = [keras.Input((2,), name="a"), keras.Input((2,), name="b")]
    keras.Model(inputs, keras.layers.Add()(inputs)).save(tmp_path / "m.keras")
    with pytest.raises(ModelFormatError, match=r"2 inputs \(a: float32 \[N, 2\]; b"):
        load_model(tmp_path)


def test_keras_does_not_run_code_of_the_file(tmp_path: Path, load_model: LoadModel) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]).save(tmp_path / "m.keras")
    with pytest.raises(ModelFormatError, match="Lambda.*model.export"):
        load_model(tmp_path)


def test_keras_with_a_class_that_is_not_here(tmp_path: Path, load_model: LoadModel) -> None:
    class Mine(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    keras.Sequential([keras.Input((2,)), Mine()]).save(tmp_path / "m.keras")
    with pytest.raises(ModelFormatError, match="needs Python code that is not here"):
        load_model(tmp_path)


# --- TensorFlow 1 checkpoint ------------------------------------------------------------------------------------------


def test_the_second_tutorials_model(shared_models: Path, load_model: LoadModel, mnist_test: Mnist) -> None:
    adapter = load_model(shared_models / "tf-dnn-mnist")
    assert str(adapter.input) == "network/X:0: float32 [N, 784]"
    # Not the tutorial's network/output/MatMul:0, which is the same without the bias that the network was trained with.
    assert [str(spec) for spec in adapter.outputs] == ["network/output/BiasAdd:0: float32 [N, 10]"]
    images, labels = mnist_test
    scores: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: scores.extend(adapter.predict(images, [adapter.outputs[0].name]).values()))
    thread.start()
    thread.join(60)
    assert accuracy(scores[0], labels) == 0.9625


@pytest.mark.parametrize("name", ["network/output/MatMul:0", "network/output/MatMul"])
def test_the_tutorials_own_tensors(shared_models: Path, load_model: LoadModel, mnist_test: Mnist, name: str) -> None:
    adapter = load_model(shared_models / "tf-dnn-mnist", input_name="network/X:0", output_names=(name,))
    images, labels = mnist_test
    assert accuracy(adapter.predict(images, [name])[name], labels) == 0.9625


def test_a_tensor_that_is_not_there(shared_models: Path, load_model: LoadModel) -> None:
    with pytest.raises(ModelFormatError, match=r"output= names 'out/MatMul:0'.*network/output/MatMul:0"):
        load_model(shared_models / "tf-dnn-mnist", output_names=("out/MatMul:0",))
    with pytest.raises(ModelFormatError, match=r"GPU_INFER_INPUT names 'images:0'.*network/X:0"):
        load_model(shared_models / "tf-dnn-mnist", input_name="images:0")


def dense(x: Any, units: int, name: str) -> Any:
    with v1.variable_scope(name):
        kernel = v1.get_variable("kernel", [x.shape[-1], units])
        return tf.matmul(x, kernel) + v1.get_variable("bias", [units], initializer=v1.zeros_initializer())


def train(loss: Any) -> None:
    v1.train.AdamOptimizer(v1.placeholder(tf.float32, [], "learning_rate")).minimize(loss)


def classifier(x: Any, y: Any) -> None:
    """A network with all that a training script puts around it."""
    training = v1.placeholder_with_default(True, [], "is_training")
    keep = v1.placeholder(tf.float32, name="keep_prob")
    hidden = tf.nn.relu(dense(x, 8, "h1"))
    mean = v1.get_variable("moving_mean", [8], initializer=v1.zeros_initializer(), trainable=False)
    hidden = tf.where(training, hidden * 1000.0, hidden - mean)
    hidden = v1.nn.dropout(hidden, keep_prob=keep)
    logits = dense(tf.reshape(hidden, [tf.shape(hidden)[0], 8]), 3, "logits")
    v1.summary.histogram("activations", logits)
    v1.summary.scalar("mean_score", tf.reduce_mean(logits))
    tf.nn.softmax(logits, name="probabilities")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
    decay = 0.01 * tf.add_n([tf.nn.l2_loss(variable) for variable in v1.trainable_variables()])
    correct = tf.equal(tf.argmax(logits, 1, name="prediction"), y)
    v1.metrics.mean(tf.cast(correct, tf.float32))
    train(tf.reduce_mean(losses + decay))


def save(folder: Path, build: Callable[[], None]) -> Path:
    """Build a graph, initialise its variables and write the checkpoint."""
    v1.set_random_seed(1)
    with tf.Graph().as_default(), v1.Session() as session, warnings.catch_warnings():
        build()
        saver = v1.train.Saver()
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        folder.mkdir(exist_ok=True)
        saver.save(session, str(folder / "model.ckpt"))
    return folder


def test_a_whole_training_graph(tmp_path: Path, load_model: LoadModel) -> None:
    folder = save(
        tmp_path / "m", lambda: classifier(v1.placeholder(tf.float32, [None, 4], "x"), v1.placeholder(tf.int64, [None]))
    )
    adapter = load_model(folder)
    assert (adapter.input.name, [spec.name for spec in adapter.outputs]) == ("x:0", ["probabilities:0"])
    batch = np.ones((2, 4), np.float32)
    named = load_model(folder, output_names=("logits/add:0", "prediction"))
    result = named.predict(batch, ["logits/add:0", "prediction"])
    scores = np.exp(result["logits/add:0"])
    # Inference: is_training is off although its default is on, keep_prob is 1; so two runs agree.
    assert adapter.predict(batch, ["probabilities:0"])["probabilities:0"] == pytest.approx(
        scores / scores.sum(axis=1, keepdims=True), abs=1e-6
    )
    assert result["prediction"].dtype == np.int64


def test_an_input_pipeline_can_be_fed_by_name(tmp_path: Path, load_model: LoadModel) -> None:
    def build() -> None:
        data = tf.data.Dataset.from_tensor_slices((np.zeros((6, 4), np.float32), np.zeros(6, np.int64))).batch(2)
        classifier(*v1.data.make_one_shot_iterator(data).get_next())

    folder = save(tmp_path / "m", build)
    with pytest.raises(ModelFormatError, match="Name the tensor that takes the batch as GPU_INFER_INPUT"):
        load_model(folder)
    adapter = load_model(folder, input_name="IteratorGetNext:0")
    assert [spec.name for spec in adapter.outputs] == ["probabilities:0"]
    assert adapter.predict(np.ones((3, 4), np.float32), ["probabilities:0"])["probabilities:0"].shape == (3, 3)


def test_two_heads_are_ambiguous(tmp_path: Path, load_model: LoadModel) -> None:
    def build() -> None:
        hidden = dense(v1.placeholder(tf.float32, [None, 4], "x"), 8, "h")
        age, name = dense(hidden, 1, "age"), dense(hidden, 5, "name")
        label = v1.placeholder(tf.float32, [None, 1], "y")
        train(tf.reduce_mean((age - label) ** 2) + tf.reduce_mean(name * label))

    folder = save(tmp_path / "m", build)
    with pytest.raises(ModelFormatError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "2 tensors may be the output" in text
    assert "age/add:0 (float32 [N, 1])" in text
    assert "output='name/add:0'" in text
    assert "GPU_INFER_INPUT" in text
    assert load_model(folder, output_names=("age/add:0",)).outputs[0].shape == (None, 1)


def test_two_inputs_are_named(tmp_path: Path, load_model: LoadModel) -> None:
    def build() -> None:
        left, right = (v1.placeholder(tf.float32, [None, 4], name) for name in ("left", "right"))
        train(tf.reduce_mean(dense(left, 2, "a") + dense(right, 2, "b")))

    with pytest.raises(ModelFormatError, match=r"2 inputs \(left:0 \(float32 \[N, 4\]\), right:0.*entry_script="):
        load_model(save(tmp_path / "m", build))


def test_an_autoencoders_loss_is_not_taken_for_its_output(tmp_path: Path, load_model: LoadModel) -> None:
    def build() -> None:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        decoded = tf.sigmoid(dense(dense(x, 2, "code"), 4, "decoder"), name="decoded")
        train(tf.reduce_mean((decoded - x) ** 2))

    folder = save(tmp_path / "m", build)
    with pytest.raises(ModelFormatError, match=r"its loss cannot be told from the output.*decoded:0"):
        load_model(folder)
    assert load_model(folder, output_names=("decoded",)).outputs[0].shape == (None, 4)


def test_a_switch_without_a_known_name(tmp_path: Path, load_model: LoadModel) -> None:
    def build() -> None:
        x, scale = v1.placeholder(tf.float32, [None, 4], "x"), v1.placeholder(tf.float32, [], "scale")
        dense(dense(x, 4, "a") * scale, 2, "b")

    with pytest.raises(ModelFormatError, match=r"needs more than the input x:0: also scale:0 \(float32 \[\]\)"):
        load_model(save(tmp_path / "m", build))


def test_tokens_and_a_loop(tmp_path: Path, load_model: LoadModel) -> None:
    def build() -> None:
        tokens = v1.placeholder(tf.int32, [None, 6], "tokens")
        label = v1.placeholder(tf.float32, [None, 1], "y")
        words = tf.nn.embedding_lookup(v1.get_variable("words", [10, 4]), tokens)
        step = lambda i, state: (i + 1, tf.tanh(state + words[:, i]))  # noqa: E731
        _, state = tf.while_loop(lambda i, state: i < 6, step, (0, tf.zeros_like(words[:, 0])))
        train(tf.reduce_mean((dense(tf.reshape(state, [-1, 4]), 1, "score") - label) ** 2))

    adapter = load_model(save(tmp_path / "m", build))
    assert (adapter.input.dtype, adapter.outputs[0].name) == ("int32", "score/add:0")
    result = adapter.predict(np.zeros((3, 6), np.int32), ["score/add:0"])
    assert result["score/add:0"].shape == (3, 1)
    with pytest.raises(adapter.invalid_input_errors):
        adapter.predict(np.full((1, 6), 99, np.int32), ["score/add:0"])


# --- device -----------------------------------------------------------------------------------------------------------


def test_no_gpu(shared_models: Path, load_model: LoadModel) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU is visible")
    with pytest.raises(NoGpuError, match=r"tf.config.list_physical_devices\('GPU'\) is empty"):
        load_model(shared_models / "mnist_savedmodel", allow_cpu=False)
    assert str(require_gpu("tensorflow", allow_cpu=True)) == "cpu"


def test_report(lite0: Adapter) -> None:
    report = gpu_report(lite0)
    assert report["framework"] == "tensorflow"
    assert report["details"]["tensorflow"] == tf.__version__
    assert report["kind"] == lite0.device.kind
