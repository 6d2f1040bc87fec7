"""A SavedModel as a server sees it: names, versions and signatures."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from cbsn.devices import set_up
from cbsn.errors import ModelError, plain_reason

_SAVED_MODEL = "saved_model.pb"
_PRIVATE = "__saved_model_init_op"
_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
_ABOUT_PYTHON = re.compile(
    r"\AGraph execution error:\s+(Detected at node .*<stack traces unavailable>\n)?| \[Op:\w*\]\Z",
    re.DOTALL,
)


class ServedModel:
    """The newest version of a SavedModel, loaded by TensorFlow and nothing else.

    What is wrong with a request is raised as TensorFlow's error, with TensorFlow Serving's code and
    words, which the services pass on. Shapes are left to the model to check. `base_path` is a
    folder of versions (`1`, `2`, …), as TensorFlow Serving polls it, or a version.
    """

    def __init__(self, base_path: str | Path, name: str):
        self.folder = _newest(Path(base_path).expanduser())
        self.name = name
        self.version = int(self.folder.name) if self.folder.name.isdecimal() else 1
        try:
            content = (self.folder / _SAVED_MODEL).read_bytes()
            graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
            set_up()
            self._loaded = tf.saved_model.load(str(self.folder))
        except Exception as error:  # damaged files make TensorFlow raise almost anything
            raise ModelError(
                f"The SavedModel in {self.folder} cannot be loaded: {plain_reason(error)}"
            ) from error
        self.signatures = {k: v for k, v in graph.signature_def.items() if k != _PRIVATE}

    def check(self, name: str, version: int | None) -> None:
        """Raises NotFoundError unless this is the model of the name, and of the version if any."""
        if name != self.name or version not in (None, self.version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise tf.errors.NotFoundError(None, None, f"Servable not found for request: {wanted}")

    def signature(self, name: str) -> SignatureDef:
        """The signature of a name; "" is the default one."""
        name = name or _DEFAULT
        if name not in self.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        return self.signatures[name]

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes a signature; arrays of strings hold bytes objects."""
        wanted = {*self.signature(signature).inputs}
        if {*inputs} != wanted:
            raise invalid(
                f"input size does not match signature: {len(inputs)}!={len(wanted)} "
                f"Sent extra: {{{','.join(sorted({*inputs} - wanted))}}}. "
                f"Missing but required: {{{','.join(sorted(wanted - {*inputs}))}}}."
            )
        # Of an array of no strings TensorFlow cannot tell what it is.
        tensors = {
            name: tf.convert_to_tensor(array, tf.string if array.dtype == object else None)
            for name, array in inputs.items()
        }
        outputs = self._loaded.signatures[signature or _DEFAULT](**tensors)
        return {name: value.numpy() for name, value in outputs.items()}


def invalid(message: str) -> tf.errors.InvalidArgumentError:
    """The error of a wrong request."""
    return tf.errors.InvalidArgumentError(None, None, message)


def message_of(error: tf.errors.OpError) -> str:
    """What TensorFlow Serving would say, which knows nothing of Python."""
    return _ABOUT_PYTHON.sub("", error.message)


def _newest(base_path: Path) -> Path:
    if (base_path / _SAVED_MODEL).is_file():
        return base_path
    versions = [path.parent for path in base_path.glob(f"*/{_SAVED_MODEL}")]
    versions = [path for path in versions if path.name.isdecimal()]
    if not versions:
        raise ModelError(
            "The folder to serve holds folders 1, 2, …, each with a SavedModel, as export.py "
            f"writes them. Received: {base_path}"
        )
    return max(versions, key=lambda path: int(path.name))
