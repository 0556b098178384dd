"""Running a file of `gel-fit export` with ONNX Runtime, without PyTorch."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gel_lightning.core.errors import GelError, missing_package, one_line
from gel_lightning.core.files import regular_file

INPUT, OUTPUT = "pictures", "probabilities"
"""Names of the only input and output of a model."""


class ExportedModel:
    """Classifies pictures of any size with an exported model.

    Args:
        content: of the whole file, so that ONNX Runtime opens no other files.
        name: for error messages.
        threads: number of threads that compute one call; 0 takes one per core. Use 1 if many threads call at once.

    Attributes:
        class_names: in the order of the probabilities.
        image_size: side in pixels to which the model resizes pictures.
        colour: whether it takes RGB pictures, not grey ones.
        sha256: of the file.
        thresholds: for each class, the probability at which an answer is certain.
        metadata: of the file.

    Raises:
        GelError: the file was not written by `gel-fit export`, or ONNX Runtime is not installed.
    """

    def __init__(self, content: bytes, name: str = "model", threads: int = 0) -> None:
        os.environ.setdefault(
            "ORT_DISABLE_TELEMETRY", "1"
        )  # 1.32 and later send telemetry to Microsoft, and write to the cache
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_package("onnxruntime", "export") from error
        self.name, self.sha256 = name, hashlib.sha256(content).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False  # would keep a pattern for every size of picture
        options.log_severity_level = 4  # errors are raised as exceptions
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
            self.class_names = tuple(map(str, json.loads(self.metadata["class_names"])))
            self.thresholds = tuple(map(float, json.loads(self.metadata["thresholds"])))
            self.image_size = int(self.metadata["image_size"])
            (taken,), (given,) = self.session.get_inputs(), self.session.get_outputs()
            takes = (taken.name, taken.type, len(taken.shape)) == (INPUT, "tensor(uint8)", 4)
            self.colour = {1: False, 3: True}[taken.shape[1]]
            gives = (given.name, given.type, given.shape[1:]) == (OUTPUT, "tensor(float)", [len(self.class_names)])
            named = len(set(self.class_names)) == len(self.class_names) == len(self.thresholds)
            if not (takes and gives and named and self.image_size > 0):
                raise ValueError
        except Exception as error:  # ONNX Runtime has many exceptions of its own
            raise GelError(f"{name}: not a model that gel-fit export has written, or damaged") from error

    @classmethod
    def load(cls, path: str | Path, threads: int = 0) -> "ExportedModel":
        """Reads a file.

        Raises:
            GelError: it cannot be opened, or was not written by `gel-fit export`.
        """
        try:
            content = regular_file(Path(path).expanduser()).read_bytes()
        except OSError as error:
            raise GelError(f"{path}: cannot be read ({error.strerror}); name a file of gel-fit export") from error
        return cls(content, str(path), threads)

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classifies pictures of one size.

        Args:
            pictures: values from 0 to 255, shape ``[N, 1, H, W]``, or with 3 channels for a model of colour pictures.

        Returns:
            The probability of each class, shape ``[N, classes]``.

        Raises:
            GelError: the model fails, or its output is not probabilities.
        """
        try:
            given: Any = self.session.run([OUTPUT], {INPUT: pictures})[0]
        except Exception as error:  # ONNX Runtime has many exceptions of its own
            raise GelError(f"{self.name}: the model cannot classify this ({one_line(error)})") from error
        probabilities = np.asarray(given, np.float32)
        if probabilities.shape != (len(pictures), len(self.class_names)) or not np.isfinite(probabilities).all():
            raise GelError(f"{self.name}: the model gives no probabilities; export it again")
        return probabilities
