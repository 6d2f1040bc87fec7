"""
Adapt the model to your pictures
================================

A few minutes of training on the very pictures that are to be denoised, without clean ones, teach
the model their noise. It pays off most where the noise is unlike that of a camera's photographs.
"""

# %%
# Pictures with unusual noise
# ---------------------------
#
# Scans of film, for example, have grain that is coarser than a sensor's noise. Here it is Gaussian
# noise, blurred, on four photographs in a temporary folder.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy
import skimage

import cbsn

temporary = tempfile.TemporaryDirectory()  # it is deleted at the end
folder = Path(temporary.name)
names = ("astronaut", "chelsea", "coffee", "rocket")
random = np.random.default_rng(1)
clean, noisy = {}, {}
for name in names:
    photograph = getattr(skimage.data, name)()
    grain = scipy.ndimage.gaussian_filter(random.normal(size=photograph.shape), (1, 1, 0))
    grain *= 14 / grain.std()
    clean[name] = photograph
    noisy[name] = np.clip(np.rint(photograph + grain), 0, 255).astype(np.uint8)
    skimage.io.imsave(folder / f"{name}.png", noisy[name], check_contrast=False)

# %%
# Adapt
# -----
#
# The small model is adapted for 40 seconds. An eighth of the patches is held out: where the loss on
# these does not fall, the weights stay as they were.

before = cbsn.load("photo")
after = cbsn.adapt(folder, model="photo", minutes=40 / 60)

# %%
# Compare
# -------


def psnr(name, picture):
    """Returns the distance from the clean picture in dB; more is better."""
    return skimage.metrics.peak_signal_noise_ratio(clean[name], picture)


results = {name: (noisy[name], before(noisy[name]), after(noisy[name])) for name in names}
print(f"{'':10}" + "".join(f"{kind:>9}" for kind in ("noisy", "before", "after")))
for name, pictures in results.items():
    print(f"{name:10}" + "".join(f"{psnr(name, each):9.2f}" for each in pictures))

# %%

crops = {"astronaut": (0, 130), "chelsea": (60, 120), "coffee": (130, 220)}
size = 160
figure, axes = plt.subplots(3, 4, figsize=(10, 7.9), layout="constrained")
for row, (name, (top, left)) in zip(axes, crops.items(), strict=True):
    titles = ("noisy", "before", "after", "clean")
    for ax, picture, title in zip(row, (*results[name], clean[name]), titles, strict=True):
        ax.imshow(picture[top : top + size, left : left + size], interpolation="nearest")
        ax.set_title(title if title == "clean" else f"{title}: {psnr(name, picture):.1f} dB")
        ax.axis("off")
plt.show()

# %%
# On the command line
# -------------------
#
# .. code-block:: sh
#
#    cbsn adapt photos/ --model photo --minutes 5 --out adapted
#    cbsn denoise photos/ --model adapted
