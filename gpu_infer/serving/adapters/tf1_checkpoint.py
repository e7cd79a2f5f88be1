"""TensorFlow 1 checkpoints with their graph: ``X.meta``, ``X.index``, ``X.data-*``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Type

import numpy as np

from .base import DeviceInfo, ModelFormatError, TensorSpec
from .common import OnePool, checked_rows, only_input
from .options import AdapterOptions
from .tf1_graph import Network, find_network
from .tf_common import FRAMEWORK, INVALID_INPUT, LOAD_ERRORS, load_error, out_of_memory, prepare, refusals, spec_of, tf

v1: Any = tf.compat.v1


class CheckpointAdapter(OnePool):
    """A session of its own on a graph of its own, both held here: whichever thread calls, no default graph is used.

    Args:
        session: with the weights restored.
        network: what to feed and fetch.
        device: where it will run.
        options: of the user; outputs keep the names that the user gave them.
    """

    framework = FRAMEWORK
    invalid_input_errors: Tuple[Type[BaseException], ...] = INVALID_INPUT

    def __init__(self, session: Any, network: Network, device: DeviceInfo, options: AdapterOptions) -> None:
        source = network.input
        names = list(options.output_names or [tensor.name for tensor in network.outputs])
        self.input: TensorSpec = only_input([spec_of(source.name, source.dtype.base_dtype, source.shape)])
        pairs = zip(names, network.outputs)
        self.outputs: Tuple[TensorSpec, ...] = tuple(spec_of(n, t.dtype.base_dtype, t.shape) for n, t in pairs)
        self.device = device
        self._session = session
        self._source = source
        self._tensors: Dict[str, Any] = dict(zip(names, network.outputs))
        self._switches = dict(network.switches)

    def predict(self, batch: np.ndarray, wanted: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Run one batch, see ``Adapter.predict``."""
        fetches = {name: self._tensors[name] for name in wanted}
        with refusals():
            results = self._session.run(fetches, {**self._switches, self._source: batch})
        return checked_rows({name: _plain(value) for name, value in results.items()}, batch)


def load(path: Path, options: AdapterOptions) -> CheckpointAdapter:
    """Restore the checkpoint with the prefix ``path``.

    Raises:
        ModelFormatError: it cannot be loaded, or its graph leaves room for doubt about input and output.
        NoGpuError: no GPU, and the CPU is not allowed.
    """
    device = prepare(options)
    graph: Any = tf.Graph()
    try:
        with graph.as_default():
            # Without clear_devices a graph trained on /gpu:1 demands that very device.
            saver = v1.train.import_meta_graph(f"{path}.meta", clear_devices=True)
            # Before the saver and the session add operations of their own.
            network = find_network(graph, input_name=options.input_name, output_names=options.output_names)
            if saver is None:
                raise ModelFormatError(f"The graph of {path.name} has no variables, so there is nothing to restore.")
            session = v1.Session(graph=graph, config=_config(options))
            saver.restore(session, str(path))
            _initialise_tables(session, graph)
    except LOAD_ERRORS as error:
        if out_of_memory(error):
            raise
        raise load_error(f"The TensorFlow 1 checkpoint {path.name}", error) from error
    graph.finalize()
    return CheckpointAdapter(session, network, device, options)


def _config(options: AdapterOptions) -> Any:
    config = v1.ConfigProto(allow_soft_placement=True)
    config.gpu_options.allow_growth = True
    if options.threads:
        config.intra_op_parallelism_threads = options.threads
        config.inter_op_parallelism_threads = options.threads
    return config


def _initialise_tables(session: Any, graph: Any) -> None:
    """Fill lookup tables: a checkpoint does not hold them."""
    tables: List[Any] = graph.get_collection(v1.GraphKeys.TABLE_INITIALIZERS)
    if tables:
        session.run(tables)


def _plain(value: Any) -> np.ndarray:
    """A result as NumPy knows it: a session gives bfloat16 as a type of its own."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
