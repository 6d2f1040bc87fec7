"""
Train on a folder, and compare methods
======================================

Two methods learn from the same noisy pictures, without clean ones. The networks are tiny and the
trainings last seconds, so the results are far from what the methods can do; but the way is the
same.
"""

# %%
# Noisy pictures
# --------------
#
# Gaussian noise with σ 25, independent from pixel to pixel. Three photographs to train on, one to
# test with.

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage

import cbsn

temporary = tempfile.TemporaryDirectory()  # it is deleted at the end
folder = Path(temporary.name)
random = np.random.default_rng(1)


def save(kind, name, picture):
    """Writes a picture to a folder of its kind."""
    (folder / kind).mkdir(exist_ok=True)
    skimage.io.imsave(folder / kind / f"{name}.png", picture, check_contrast=False)


for name in ("astronaut", "chelsea", "coffee", "rocket"):
    clean = getattr(skimage.data, name)()
    noisy = clean + random.normal(0, 25, clean.shape)
    noisy = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if name == "coffee":
        save("test_noisy", name, noisy)
        save("test_clean", name, clean)
    else:
        save("train", name, noisy)

# %%
# Train
# -----
#
# ``n2v-unet`` is Noise2Void's U-Net; ``cbsn`` is C-BSN, here with the strides for noise that is
# independent. Both are small, and get 300 steps each.

os.chdir(folder)  # training keeps its patches here, in the folder dataset

common = {
    "steps": 300,
    "channels": 16,
    "learning_rate": 2e-3,
    "ema": 0.98,
    "seed": 1,
}
runs = [
    cbsn.train(
        folder / "train",
        recipe="n2v-unet",
        out=folder / "n2v-unet",
        batch_size=8,
        patch_size=64,
        depth=2,
        **common,
    ),
    cbsn.train(
        folder / "train",
        recipe="cbsn",
        out=folder / "cbsn",
        batch_size=4,
        patch_size=48,
        modules=3,
        stride_b=1,
        stride_i=1,
        **common,
    ),
]

# %%
# Compare
# -------
#
# ``evaluate`` scores the models, and the noisy pictures themselves. After 300 steps, the model that
# ships is still ahead, although it was trained for the noise of cameras.

scores = cbsn.evaluate(
    [*runs, "photo"],
    noisy=folder / "test_noisy",
    clean=folder / "test_clean",
    baselines="noisy",
)
for each in scores:
    name = each.method.split()[0]
    print(f"{name:12}{each.mean('psnr'):8.2f} dB{each.mean('ssim'):8.3f}")

# %%
# Most of the noise is gone, and so is some detail. The colours are not right yet.

top, left, size = 130, 220, 200
crop = np.s_[top : top + size, left : left + size]
noisy = skimage.io.imread(folder / "test_noisy" / "coffee.png")
clean = skimage.io.imread(folder / "test_clean" / "coffee.png")
pictures = {
    "noisy": noisy,
    "n2v-unet, 300 steps": cbsn.denoise(noisy, model=runs[0]),
    "cbsn, 300 steps": cbsn.denoise(noisy, model=runs[1]),
    "clean": clean,
}
figure, axes = plt.subplots(2, 2, figsize=(8, 8.4), layout="constrained")
for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(picture[crop], interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
plt.show()

# %%
# On the command line
# -------------------
#
# .. code-block:: sh
#
#    cbsn train photos/ --name cells --recipe n2v-unet
#    cbsn evaluate --model checkpoints/cells --noisy photos --clean clean
