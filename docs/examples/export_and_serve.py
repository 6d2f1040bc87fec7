"""
Export a model, and use it without cbsn
=======================================

An exported model is a TensorFlow SavedModel with everything inside: normalisation, tiles, the
network, rounding. TensorFlow Serving serves it, and any TensorFlow program can call it.
"""

# %%
# Export
# ------
#
# This is the function behind the command ``cbsn export``. Without a version, it takes the next one,
# which is 1 here. It computes in float32, as it does not know the hardware of the server.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage

import cbsn
from cbsn.export.export import export
from cbsn.noise.synthetic import simulate_camera

temporary = tempfile.TemporaryDirectory()  # it is deleted at the end
folder = Path(temporary.name) / "photo"
export("photo", folder)
print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")), sep="\n")

# %%
# Call it
# -------
#
# TensorFlow Serving expects a folder of versions, such as ``1``. Each signature is a function from
# tensors to tensors.

import tensorflow as tf

served = tf.saved_model.load(str(folder / "1"))
print(*sorted(served.signatures), sep="\n")

# %%
# Pictures go in as a batch of 8-bit values…

photograph = skimage.data.chelsea()
noisy = simulate_camera(photograph, seed=1)
denoised = served.signatures["uint8"](images=noisy[np.newaxis])["denoised"].numpy()[0]

# %%
# … or as the bytes of PNG or JPEG files, which is what a client of a server sends.

encoded = tf.io.encode_png(noisy)
answer = served.signatures["encoded"](image_bytes=encoded[tf.newaxis])
from_file = tf.io.decode_png(answer["denoised_bytes"][0]).numpy()
assert np.array_equal(from_file, denoised)

# %%
# Compare with ``cbsn.denoise``
# -----------------------------
#
# In the same precision, the results are the same to one level.

expected = cbsn.denoise(noisy, model="photo", precision="float32")
difference = np.abs(denoised.astype(int) - expected)
print(f"at most {difference.max()} of 255; {(difference > 0).mean():.2%} of the values differ")

# %%

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for ax, picture, title in ((axes[0], noisy, "sent"), (axes[1], from_file, "received")):
    ax.imshow(picture, interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
plt.show()

# %%
# On the command line
# -------------------
#
# .. code-block:: sh
#
#    cbsn export --model photo --out served/photo
#    docker run --rm -p 8501:8501 -v "$PWD/served/photo:/models/photo" \
#      -e MODEL_NAME=photo tensorflow/serving
#    cbsn client photos/ --url localhost:8501 --rest --model photo
