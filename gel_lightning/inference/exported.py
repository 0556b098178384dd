"""A file that `gel-fit export` has written, run by ONNX Runtime; nothing here imports PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gel_lightning.core.errors import GelError, missing_package

INPUT, OUTPUT = "pictures", "probabilities"
"""Names of the model's one input and one output."""


class ExportedModel:
    """Classifies grey pictures of any size with an exported model.

    Args:
        content: the file, all of it: ONNX Runtime then looks for no other file.
        name: what errors call it.

    Attributes:
        class_names: in the order of the probabilities.
        thresholds: of each class, the least probability at which an answer is certain.
        metadata: all that the file says about itself, as text by key.

    Raises:
        GelError: not a model of ours, or ONNX Runtime is not installed.
    """

    def __init__(self, content: bytes, name: str = "model") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_package("onnxruntime", "export") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong comes as an exception
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
            self.class_names = tuple(map(str, json.loads(self.metadata["class_names"])))
            self.thresholds = tuple(map(float, json.loads(self.metadata["thresholds"])))
            named = [value.name for value in (*self.session.get_inputs(), *self.session.get_outputs())]
            if named != [INPUT, OUTPUT] or len(self.thresholds) != len(self.class_names):
                raise ValueError
        except Exception as error:  # ONNX Runtime has many kinds of its own
            raise GelError(f"{name}: not a model that gel-fit export has written, or damaged") from error

    @classmethod
    def load(cls, path: str | Path) -> "ExportedModel":
        """Reads a file.

        Raises:
            GelError: it cannot be opened, or is not a model of ours.
        """
        try:
            content = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise GelError(f"{path}: cannot be read ({error.strerror}); name a file of gel-fit export") from error
        return cls(content, str(path))

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classifies pictures of one size.

        Args:
            pictures: grey values, shape ``[N, 1, H, W]``.

        Returns:
            The probability of each class, shape ``[N, classes]``.
        """
        probabilities: Any = self.session.run([OUTPUT], {INPUT: pictures})[0]
        return np.asarray(probabilities, np.float32)
