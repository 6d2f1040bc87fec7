"""A SavedModel with the signatures of export.py's that halves pictures instead of denoising."""

import tensorflow as tf


class Halves(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None] * 4, tf.float32, "images")])
    def floats(self, images):
        _check_channels(images)
        in_range = tf.reduce_all((images >= 0) & (images <= 1))
        tf.debugging.Assert(in_range, ["images are finite and in [0, 1]"])
        return {"denoised": images / 2}

    @tf.function(input_signature=[tf.TensorSpec([None] * 4, tf.uint8, "images")])
    def bytes(self, images):
        _check_channels(images)
        return {"denoised": images // 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def files(self, image_bytes):
        return {"denoised_bytes": tf.map_fn(_halve_file, image_bytes)}


def _check_channels(images):
    channels = tf.shape(images)[-1]
    tf.debugging.Assert(channels <= 4, ["images have 1 to 4 channels. Received:", channels])


def _halve_file(file):
    def halve(dtype):
        return tf.io.encode_png(tf.io.decode_png(file, dtype=dtype) // 2)

    is_deep = tf.strings.substr(file, 24, 1) == b"\x10"  # as its header says
    return tf.cond(is_deep, lambda: halve(tf.uint16), lambda: halve(tf.uint8))


def save(folder, version=1):
    """Saves it as a version below a folder; returns the folder."""
    model = Halves()
    signatures = {"serving_default": model.floats, "uint8": model.bytes, "encoded": model.files}
    tf.saved_model.save(model, str(folder / str(version)), signatures)
    return folder
