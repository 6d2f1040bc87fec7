import json

import numpy as np
import pytest
import tensorflow as tf

from cbsn.export.formats import FACTS, WARMUP, write_saved_model


@pytest.mark.slow
def test_a_process_without_this_package_runs_it(saved_model, denoiser, random, run_python):
    """By TensorFlow 2, and by the loader that TensorFlow Serving has, too."""
    folder = saved_model.parent
    pictures = random.integers(0, 255, (2, 40, 31, 3), np.uint8)
    np.save(folder / "pictures.npy", pictures)
    process = run_python(f"""
        import sys
        sys.modules.update(dict.fromkeys(["cbsn", "data_prep", "keras"]))  # not to be imported
        import numpy as np
        import tensorflow as tf

        pictures = np.load({str(folder / "pictures.npy")!r})
        files = [tf.io.encode_png(picture).numpy() for picture in pictures]
        model = tf.saved_model.load({str(saved_model)!r})
        serve = model.signatures
        floats = serve["serving_default"](images=tf.constant(pictures / np.float32(255)))
        encoded = serve["encoded"](image_bytes=tf.constant(files))["denoised_bytes"]
        results = [
            floats["denoised"] * 255,
            serve["uint8"](images=tf.constant(pictures))["denoised"],
            [tf.io.decode_png(file) for file in encoded],
        ]
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], {str(saved_model)!r})
            signature = loaded.signature_def["uint8"]
            output, images = signature.outputs["denoised"].name, signature.inputs["images"].name
            results.append(session.run(output, {{images: pictures}}))
        np.save({str(folder / "results.npy")!r}, np.asarray(results, np.float32))
    """)
    assert process.returncode == 0, process.stderr
    expected = np.stack([denoiser(picture) for picture in pictures]).astype("float32")
    floats, *integers = np.load(folder / "results.npy")
    assert np.abs(floats - expected).max() <= 0.5 + 255e-4
    for result in integers:
        assert np.abs(result - expected).max() <= 1


def test_the_folder_is_what_a_server_expects(saved_model):
    assert saved_model.name == "1"
    assert [path.name for path in saved_model.parent.glob(".*")] == []  # no half of one is left
    assert (saved_model / "saved_model.pb").is_file()
    assert (saved_model / "variables/variables.index").is_file()
    assert json.loads((saved_model / FACTS).read_text())["recipe"]["name"] == "cbsn"


@pytest.mark.slow
def test_warmup_requests_are_answered(saved_model):
    from tensorflow_serving.apis import prediction_log_pb2

    loaded = tf.saved_model.load(str(saved_model))
    signatures = set()
    for record in tf.data.TFRecordDataset(str(saved_model / WARMUP)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "denoiser"
        inputs = {key: tf.constant(tf.make_ndarray(x)) for key, x in request.inputs.items()}
        [result] = loaded.signatures[request.model_spec.signature_name](**inputs).values()
        assert result.shape[0] == 1
        signatures.add(request.model_spec.signature_name)
    assert signatures == set(loaded.signatures)


def test_what_cannot_be_written_leaves_nothing(denoiser, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_saved_model(tmp_path / "1", denoiser)
    assert [*tmp_path.iterdir()] == []
