"""Finds what goes in and what comes out of a TensorFlow 1 training graph, which says neither.

A training graph holds the network and much else: labels, loss, metrics, gradients, the optimiser, the saver. The rules:

* The **input** is the placeholder that leads to variables (``X @ W``). Labels never do: they only meet what the network
  has computed already. Learning rates and switches are scalars.
* The **output** is the last tensor of floats computed from the input and the variables alone, one row per item, with
  what decides on it (``argmax``, comparisons) and what measures it (loss, metrics, gradients) left out.

Where that leaves more than one tensor, the user has to name it: a wrong guess would be served as the truth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .base import ModelFormatError
from .common import ENTRY_SCRIPT

# The graph's own objects carry no types: `op` and `tensor` below are TensorFlow's Operation and Tensor.

_PLACEHOLDERS = {"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"}
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
# What these compute is the layout of a tensor, not its values.
_LAYOUT = {"Shape", "ShapeN", "Size", "Rank"}
_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf"}
_COMPARISONS = {"Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"}
_DECISIONS = {"ArgMax", "ArgMin", "TopKV2", "InTopK", "InTopKV2", "Round", "Rint", "Sign"} | _COMPARISONS
_UPDATE = re.compile(
    r"^(Resource)?(Sparse)?Apply|^Assign|^(Resource)?StridedSliceAssign|^ResourceScatter|"
    r"^Scatter(Add|Sub|Mul|Div|Min|Max|Update|Nd(Add|Sub|Update))$"
)
_NO_NETWORK = re.compile(
    r"(^|/)(gradients|save|train|training|optimizer|loss|losses|cost|accuracy|metrics|eval|evaluation|summaries|"
    r"report_uninitialized_variables|[\w.]*(Adam|GradientDescent|Momentum|RMSProp|Adagrad|Adadelta|Ftrl)\w*)(_\d+)?/"
)
_SWITCHES: Tuple[Tuple[str, str, Any], ...] = (
    ("bool", r"train|phase|dropout", False),
    ("bool", r"infer|predict|test|eval", True),
    ("float", r"keep", 1.0),
    ("float", r"drop", 0.0),
)
_LISTED = 12


@dataclass(frozen=True)
class Network:
    """What to feed and what to fetch.

    Args:
        input: tensor that takes the batch.
        outputs: tensors to fetch.
        switches: values of further placeholders, for inference (``is_training`` is False, ``keep_prob`` is 1).
    """

    input: Any
    outputs: Tuple[Any, ...]
    switches: Mapping[Any, Any]


@dataclass
class _Flow:
    """What each operation is computed from: a set of sources as bits, and a bit for variables.

    Args:
        sources: the tensors that may be fed: placeholders, and what the user named.
        bits: the bit of each source, by name.
        masks: what each operation of the network is computed from.
        decided: operations behind a decision.
    """

    sources: List[Any]
    bits: Dict[str, int]
    masks: Dict[Any, int]
    decided: Set[Any]

    @property
    def variable_bit(self) -> int:
        return 1 << len(self.sources)

    def mask(self, tensor: Any) -> int:
        """What a tensor is computed from."""
        return self.bits.get(tensor.name) or self.masks.get(tensor.op, 0)

    def behind(self, mask: int) -> List[Any]:
        """The sources of a mask."""
        return [source for index, source in enumerate(self.sources) if mask >> index & 1]


def find_network(graph: Any, *, input_name: Optional[str], output_names: Optional[Sequence[str]]) -> Network:
    """Find input and outputs of a graph.

    Args:
        graph: the imported ``tf.Graph``.
        input_name: tensor that the user named, as ``"network/X:0"`` or ``"network/X"``.
        output_names: the same for the outputs.

    Raises:
        ModelFormatError: a name that is not in the graph, or a graph that leaves room for doubt; lists the candidates.
    """
    named_input = _tensor(graph, input_name, "GPU_INFER_INPUT") if input_name else None
    flow = _trace(graph, named_input)
    source = named_input if named_input is not None else _find_input(flow)
    if output_names:
        outputs = [_tensor(graph, name, "output=") for name in output_names]
    else:
        outputs = [_find_output(graph, flow, source)]
    return Network(source, tuple(outputs), _switches(flow, source, outputs))


def _tensor(graph: Any, name: str, option: str) -> Any:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        last = name.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0].lower()
        alike = [op.outputs[0].name for op in _forward(graph) if op.outputs and last in op.name.lower()]
        listing = ", ".join(alike[:_LISTED] or [tensor.name for tensor in _placeholders(graph)])
        raise ModelFormatError(
            f"{option} names {name!r}, and the graph has no such tensor. It has: {listing}."
        ) from error


def _forward(graph: Any) -> List[Any]:
    """The operations that may belong to the network, in the order of their creation."""
    return [op for op in graph.get_operations() if not _UPDATE.match(op.type) and not _NO_NETWORK.search(f"{op.name}/")]


def _placeholders(graph: Any) -> List[Any]:
    return [op.outputs[0] for op in graph.get_operations() if op.type in _PLACEHOLDERS]


def _trace(graph: Any, named_input: Any) -> _Flow:
    """Follow every placeholder, and the variables, through the network."""
    # An input pipeline's operation has the labels as a further output: another source.
    named = [] if named_input is None else list(named_input.op.outputs)
    names = {tensor.name for tensor in named}
    sources = [*named, *(tensor for tensor in _placeholders(graph) if tensor.name not in names)]
    flow = _Flow(sources, {tensor.name: 1 << index for index, tensor in enumerate(sources)}, {}, set())
    operations = _forward(graph)
    changed = True
    while changed:  # once more for each nesting of loops: their back edges come before what they lead to
        changed = False
        for op in operations:
            mask = _mask(op, flow)
            if mask != flow.masks.get(op):
                flow.masks[op] = mask
                changed = True
            if op not in flow.decided and (_decides(op, mask, flow) or any(t.op in flow.decided for t in op.inputs)):
                flow.decided.add(op)
                changed = True
    return flow


def _mask(op: Any, flow: _Flow) -> int:
    if op.type in _VARIABLES:
        return flow.variable_bit
    if op.type in _LAYOUT:
        return 0
    mask = 0
    for tensor in op.inputs:
        mask |= flow.mask(tensor)
    return mask


def _decides(op: Any, mask: int, flow: _Flow) -> bool:
    return op.type in _DECISIONS and bool(mask & flow.variable_bit)


def _in_network(flow: _Flow) -> int:
    """Mask of the sources that the network is computed from: all that meet variables somewhere.

    A meeting with a single number is only counted where there is no other: it may be a loss that meets its regulariser.
    """
    arrays = numbers = 0
    variables = flow.variable_bit
    for op in flow.masks:
        masks = [flow.mask(tensor) for tensor in op.inputs]
        if variables not in masks or not any(_may_be_rows(tensor, None) for tensor in op.outputs):
            continue
        met = 0
        for mask in masks:
            met |= mask & ~variables
        numbers |= met
        if any(mask == variables and not _is_number(tensor) for mask, tensor in zip(masks, op.inputs)):
            arrays |= met
    return arrays or numbers


def _is_number(tensor: Any) -> bool:
    return tensor.shape.rank == 0 and tensor.dtype.name != "resource"


def _is_switch(tensor: Any) -> bool:
    rank = tensor.shape.rank
    is_bool = tensor.dtype.base_dtype.name == "bool"
    return rank == 0 or is_bool or (rank is None and _switch_value(tensor) is not None)


def _find_input(flow: _Flow) -> Any:
    found = [tensor for tensor in flow.behind(_in_network(flow)) if not _is_switch(tensor)]
    found = [tensor for tensor in found if tensor.shape.rank is not None] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelFormatError(
            f"The graph has {len(found)} inputs ({_listing(found)}), and a request carries items for one. Name the "
            f"right one as GPU_INFER_INPUT if the network runs on it alone. {ENTRY_SCRIPT}"
        )
    has = _listing(flow.sources) or "none"
    raise ModelFormatError(
        f"No placeholder of the graph leads into the network (placeholders: {has}). Name the tensor that takes the "
        "batch as GPU_INFER_INPUT, for example the output of the input pipeline (IteratorGetNext:0)."
    )


def _may_be_rows(tensor: Any, batch: Optional[int]) -> bool:
    """Whether a tensor may have one row per item."""
    shape = tensor.shape
    return shape.rank is None or (shape.rank > 0 and shape[0] in (None, batch))


def _find_output(graph: Any, flow: _Flow, source: Any) -> Any:
    allowed = _in_network(flow) | flow.variable_bit
    mine = flow.mask(source)
    batch = source.shape[0] if source.shape.rank else None
    candidates: List[Any] = []
    for op, mask in flow.masks.items():
        if mask & ~allowed or not mask & mine or not mask & flow.variable_bit or op in flow.decided:
            continue
        candidates += [t for t in op.outputs if t.dtype.is_floating and _may_be_rows(t, batch)]
    known = [tensor for tensor in candidates if tensor.shape.rank is not None]
    candidates = known or candidates
    last = _without_heirs(candidates, flow)
    if len(last) == 1 and not _loss_may_hide(graph, flow):
        return last[0]
    if not last:
        raise ModelFormatError(
            f"Nothing in the graph is computed from {source.name} and the variables, with one row per item. Name the "
            "output with output=, and the input with GPU_INFER_INPUT."
        )
    why = f"{len(last)} tensors may be" if len(last) > 1 else "the graph has no labels, so its loss cannot be told from"
    raise ModelFormatError(
        f"In this TensorFlow 1 graph {why} the output. Candidates, the last one last: "
        f"{_listing(candidates[-_LISTED:])}. Name the right one with output=, for example output={last[-1].name!r} "
        f"(and the input with GPU_INFER_INPUT if {source.name} is not it)."
    )


def _without_heirs(candidates: Sequence[Any], flow: _Flow) -> List[Any]:
    """The candidates from which no other candidate is computed."""
    producing = {tensor.op for tensor in candidates}
    forebears: Set[Any] = set()
    waiting = [tensor.op for op in producing for tensor in op.inputs]
    while waiting:
        op = waiting.pop()
        if op not in forebears:
            forebears.add(op)
            waiting += [tensor.op for tensor in op.inputs if tensor.op in flow.masks]
    last = [tensor for tensor in candidates if tensor.op not in forebears]
    return [tensor for tensor in last if not _is_loop_variable(tensor.op)] or last


def _is_loop_variable(op: Any) -> bool:
    """Whether an operation hands on what a loop or branch carried along; nothing uses it, or it would have an heir."""
    return op.type == "Exit" or (op.type == "Identity" and op.inputs[0].op.type in _CONTROL_FLOW)


def _loss_may_hide(graph: Any, flow: _Flow) -> bool:
    """Whether the graph was trained without labels (an autoencoder): then its loss looks like the network."""
    trained = any(op.name.startswith("gradients") for op in graph.get_operations())
    network = _in_network(flow)
    labels = [tensor for tensor in flow.sources if not flow.mask(tensor) & network and not _is_switch(tensor)]
    return trained and not labels


def _switch_value(tensor: Any) -> Any:
    """The value of a switch for inference, ``None`` where its name does not tell."""
    kind: str = tensor.dtype.base_dtype.name
    name: str = tensor.op.name.split("/")[-1].lower()
    return next((value for of, pattern, value in _SWITCHES if kind.startswith(of) and re.search(pattern, name)), None)


def _switches(flow: _Flow, source: Any, outputs: Sequence[Any]) -> Mapping[Any, Any]:
    """What else must be fed for these outputs."""
    mask = 0
    for tensor in outputs:
        mask |= flow.mask(tensor)
    values: Dict[Any, Any] = {}
    unknown: List[Any] = []
    for tensor in flow.behind(mask & ~flow.mask(source)):
        value = _switch_value(tensor) if _is_switch(tensor) else None
        if value is not None:
            values[tensor] = value
        elif tensor.op.type != "PlaceholderWithDefault":
            unknown.append(tensor)
    if unknown:
        raise ModelFormatError(
            f"The output {', '.join(t.name for t in outputs)} needs more than the input {source.name}: also "
            f"{_listing(unknown)}. Name an output that does not with output=, or export a SavedModel in which these "
            f"are constants. {ENTRY_SCRIPT}"
        )
    return values


def _listing(tensors: Iterable[Any]) -> str:
    def axes(tensor: Any) -> str:
        rank = tensor.shape.rank
        return "?" if rank is None else ", ".join("N" if axis is None else str(axis) for axis in tensor.shape)

    return ", ".join(f"{tensor.name} ({tensor.dtype.base_dtype.name} [{axes(tensor)}])" for tensor in tensors)
