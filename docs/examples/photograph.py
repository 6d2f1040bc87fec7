"""
Denoise a photograph
====================

One call denoises a photograph. How much of the noise goes is yours to choose, and what was removed
can be looked at.
"""

# %%
# A noisy photograph
# ------------------
#
# ``simulate_camera`` takes a photograph again with a noisy camera: a Bayer sensor with shot noise
# and read noise, demosaicing, white balance and the sRGB curve. Without noise it gives the clean
# side to compare with.

import matplotlib.pyplot as plt
import numpy as np
import skimage

import cbsn
from cbsn.noise.synthetic import simulate_camera

photograph = skimage.data.coffee()
clean = simulate_camera(photograph, shot=0, read=0)
noisy = simulate_camera(photograph, shot=0.01, read=0.02, seed=1)

# %%
# Denoise it
# ----------
#
# The picture may have 8 or 16 bits or be of floats; the result has the same shape and dtype. The
# model is loaded by the first call, and kept.

denoised = cbsn.denoise(noisy)
half = cbsn.denoise(noisy, strength=0.5)


def psnr(picture):
    """Returns the distance from the clean picture in dB; more is better."""
    return skimage.metrics.peak_signal_noise_ratio(clean, picture)


# %%
# With ``strength=0.5``, half of the noise is left. That looks less smooth, and hides small mistakes
# of the model, such as lost texture.

top, left, size = 130, 220, 200
crop = np.s_[top : top + size, left : left + size]

figure, axes = plt.subplots(2, 2, figsize=(8, 8.4), layout="constrained")
for ax, picture, title in zip(
    axes.flat,
    (noisy, half, denoised, clean),
    ("noisy", "strength 0.5", "strength 1 (the default)", "clean"),
    strict=True,
):
    ax.imshow(picture[crop], interpolation="nearest")
    ax.set_title(title if picture is clean else f"{title}: {psnr(picture):.1f} dB")
    ax.axis("off")
plt.show()

# %%
# What was removed
# ----------------
#
# The difference of the two pictures should look like noise. Contours in it are detail that was
# lost. Here it is twice as strong as it was, around a middle gray; the true noise is next to it.

removed = noisy.astype(float) - denoised
noise = noisy.astype(float) - clean

figure, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
for ax, difference, title in (
    (axes[0], removed, "removed, × 2"),
    (axes[1], noise, "the true noise, × 2"),
):
    ax.imshow(np.clip(128 + 2 * difference[crop], 0, 255).astype(np.uint8), interpolation="nearest")
    ax.set_title(f"{title}; σ = {difference.std():.1f}")
    ax.axis("off")
plt.show()

# %%
# Brightness and colour have strengths of their own. Grain without colour is often more pleasant
# than no grain at all.

grain = cbsn.denoise(noisy, strength=0.6, color_strength=1)

figure, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
for ax, picture, title in (
    (axes[0], noisy, "noisy"),
    (axes[1], grain, "brightness 0.6, colour 1"),
):
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
#    cbsn denoise photos/ --strength 0.6 --color_strength 1
