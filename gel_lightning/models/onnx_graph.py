"""The ONNX graph of a frozen trunk: its operations without its weights, which ONNX Runtime takes from memory.

``torch.onnx.export`` takes any network, and 2 to 12 seconds for one, more than ONNX Runtime saves on some hundred
pictures. A trunk of the families below consists of few kinds of layers, and its graph is written in some 0.1 seconds.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from onnx import TensorProto, helper
from torch import Tensor, fx, nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

from gel_lightning.models.network import Trunk

PICTURES, FEATURES = "pictures", "features"
"""Names of the only input and output of a graph."""
OPSET, IR_VERSION = 18, 9  # what ONNX Runtime 1.20 knows


class UnknownLayer(Exception):
    """A layer for which there is no ONNX operation here."""


class Graph(NamedTuple):
    """A trunk as ONNX Runtime takes it.

    Attributes:
        content: the model, which refers to its weights by name only.
        weights: by those names.
        features: what torch gives for the example.
    """

    content: bytes
    weights: dict[str, Tensor]
    features: Tensor


@torch.no_grad()
def onnx_graph(trunk: Trunk, example: Tensor) -> Graph:
    """Writes the graph of a trunk, for any number of pictures of one size.

    Args:
        trunk: on the CPU, in 32 bits.
        example: pictures of that size, shape ``[N, 1 or 3, H, W]``.

    Raises:
        UnknownLayer: it has a layer that is not known.
    """
    sizes: dict[nn.Module, tuple[int, int]] = {}

    def note(pool: nn.Module, taken: tuple[Tensor, ...]) -> None:
        sizes[pool] = (taken[0].shape[2], taken[0].shape[3])

    pools = [module for module in trunk.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    hooks = [pool.register_forward_pre_hook(note) for pool in pools]
    features = trunk(example)
    for hook in hooks:
        hook.remove()
    writer = _Writer({**dict(trunk.layers.named_parameters()), "mean/": trunk.mean, "std/": trunk.std}, sizes)
    normalised = writer.add("Div", writer.add("Sub", PICTURES, writer.weight("mean/")), writer.weight("std/"))
    names: dict[fx.Node, str] = {}
    for node in _Tracer().trace(trunk.layers).nodes:
        if node.op == "placeholder":
            names[node] = normalised
        elif node.op == "output":
            writer.add("Identity", names[node.args[0]], output=FEATURES)
        else:
            names[node] = _written(writer, trunk.layers, node, names)
    return Graph(writer.model(example.shape[1:], features.ndim), writer.used, features)


class _Tracer(fx.Tracer):
    """Takes layers with weights as one operation, whoever wrote them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


class _Writer:
    """Collects the operations of a graph.

    Args:
        weights: that it may use.
        sizes: height and width of what each adaptive pooling is given.

    Attributes:
        used: the weights that it uses.
    """

    def __init__(self, weights: Mapping[str, Tensor], sizes: Mapping[nn.Module, tuple[int, int]]) -> None:
        self._weights, self.sizes = weights, sizes
        self.used: dict[str, Tensor] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def weight(self, name: str) -> str:
        """The name of a weight in the graph."""
        self.used[name] = self._weights[name].detach()
        return name

    def constant(self, kind: int, values: list[Any], shape: list[int]) -> str:
        """The name of a constant that is part of the graph."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(helper.make_tensor(name, kind, shape, values))
        return name

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds an operation, and returns the name of what it gives."""
        output = output or f"value_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def model(self, picture: Sequence[int], dimensions: int) -> bytes:
        """The model, in which each weight is said to be in a file.

        Args:
            picture: shape of what it takes, without the batch.
            dimensions: of what it gives, the batch among them.
        """
        outside = [*self._constants]
        for name, value in self.used.items():
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=list(value.shape))
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="memory")
            outside.append(tensor)
        taken = helper.make_tensor_value_info(PICTURES, TensorProto.FLOAT, ["n", *picture])
        given = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", *[None] * (dimensions - 1)])
        graph = helper.make_graph(self._nodes, "trunk", [taken], [given], outside)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        content: bytes = model.SerializeToString()
        return content


def _written(writer: _Writer, layers: nn.Module, node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """Adds what a node of a trace stands for, and returns the name of what it gives."""
    inputs = [names[value] for value in node.all_input_nodes]
    if node.op == "call_module":
        module = layers.get_submodule(str(node.target))
        write = LAYERS.get(type(module).__name__)
        if write is not None and type(module).__module__.split(".")[0] in ("torch", "timm"):
            return write(writer, inputs[0], module, str(node.target))
    elif node.op == "call_function":
        kind = next((kind for function, kind in FUNCTIONS if function is node.target), None)
        if kind is not None and len(inputs) == len(node.args) == 2:
            return writer.add(kind, *inputs)
        if node.target is torch.flatten and node.args[1:] == (1,):
            return _flatten(writer, inputs[0])
        if node.target is stochastic_depth and layers.training is False:
            return inputs[0]
    raise UnknownLayer(str(node.target))


def _convolution(writer: _Writer, value: str, layer: Any, name: str) -> str:
    same = type(layer).__name__ == "Conv2dSame"
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnknownLayer(name)
    weights = [writer.weight(f"{name}.{part}") for part, _ in layer.named_parameters()]
    padding: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if same else {"pads": [*layer.padding, *layer.padding]}
    return writer.add(
        *("Conv", value, *weights),
        strides=list(layer.stride),
        dilations=list(layer.dilation),
        group=layer.groups,
        **padding,
    )


def _linear(writer: _Writer, value: str, layer: Any, name: str) -> str:
    weights = [writer.weight(f"{name}.{part}") for part, _ in layer.named_parameters()]
    return writer.add("Gemm", value, *weights, transB=1)


def _max_pool(writer: _Writer, value: str, layer: Any, name: str) -> str:
    size, stride, padding, dilation = (
        [number, number] if isinstance(number, int) else list(number)
        for number in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    return writer.add(
        *("MaxPool", value),
        kernel_shape=size,
        strides=stride,
        pads=[*padding, *padding],
        dilations=dilation,
        ceil_mode=int(layer.ceil_mode),
    )


def _average_pool(writer: _Writer, value: str, layer: Any, name: str) -> str:
    """Adaptive pooling: nothing, an average of the whole map, or a weighted sum along each of its axes."""
    size, wanted = writer.sizes[layer], layer.output_size
    wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
    if size == wanted:
        return value
    if wanted == (1, 1):
        return writer.add("GlobalAveragePool", value)
    rows, columns = (
        functional.adaptive_avg_pool1d(torch.eye(given, device="cpu"), number)
        for given, number in zip(size, wanted, strict=True)
    )
    left = writer.constant(TensorProto.FLOAT, rows.T.flatten().tolist(), list(rows.T.shape))
    right = writer.constant(TensorProto.FLOAT, columns.flatten().tolist(), list(columns.shape))
    return writer.add("MatMul", writer.add("MatMul", left, value), right)


def _flatten(writer: _Writer, value: str, *_: Any) -> str:
    return writer.add("Flatten", value, axis=1)


def _identity(writer: _Writer, value: str, *_: Any) -> str:
    return value


def _relu6(writer: _Writer, value: str, *_: Any) -> str:
    least, most = (writer.constant(TensorProto.FLOAT, [number], []) for number in (0.0, 6.0))
    return writer.add("Clip", value, least, most)


def _hard_sigmoid(writer: _Writer, value: str, *_: Any) -> str:
    return writer.add("HardSigmoid", value, alpha=1 / 6, beta=0.5)


def _silu(writer: _Writer, value: str, *_: Any) -> str:
    return writer.add("Mul", value, writer.add("Sigmoid", value))


def _plain(kind: str) -> Callable[..., str]:
    """Writes an operation that has no settings."""
    return lambda writer, value, *_: writer.add(kind, value)


LAYERS: dict[str, Callable[..., str]] = {
    "Conv2d": _convolution,
    "Conv2dSame": _convolution,  # timm's, which pads as TensorFlow does
    "Linear": _linear,
    "MaxPool2d": _max_pool,
    "AdaptiveAvgPool2d": _average_pool,
    "Flatten": _flatten,
    "Identity": _identity,
    "Dropout": _identity,
    "ReLU": _plain("Relu"),
    "ReLU6": _relu6,
    "Hardswish": _plain("HardSwish"),
    "Hardsigmoid": _hard_sigmoid,
    "Sigmoid": _plain("Sigmoid"),
    "SiLU": _silu,
}
"""What writes a layer, by the name of its class."""
FUNCTIONS = ((operator.add, "Add"), (operator.iadd, "Add"), (operator.mul, "Mul"), (operator.imul, "Mul"))
"""Operations on two values."""
