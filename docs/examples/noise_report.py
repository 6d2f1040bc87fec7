"""
Find out what noise is in pictures
==================================

How strong is the noise, does it depend on the brightness, and how far is it correlated? That
decides which method can remove it. The noise is measured in the flat parts of the noisy pictures
alone.
"""

# %%
# Two kinds of noise
# ------------------
#
# The same photographs, once taken by a simulated camera, once with Gaussian noise that is
# independent from pixel to pixel, as in microscopy.

import matplotlib.pyplot as plt
import numpy as np
import skimage

import cbsn
from cbsn.noise.advice import advise
from cbsn.noise.synthetic import simulate_camera

random = np.random.default_rng(1)
names = ("astronaut", "chelsea", "coffee", "rocket")
photographs = [getattr(skimage.data, name)() for name in names]
camera = [
    simulate_camera(each, shot=0.003, read=0.005, seed=seed)
    for seed, each in enumerate(photographs)
]
independent = [
    np.clip(np.rint(each + random.normal(0, 15, each.shape)), 0, 255).astype(np.uint8)
    for each in photographs
]

# %%
# Estimate it
# -----------

estimates = {
    "camera": cbsn.estimate_noise(camera),
    "independent": cbsn.estimate_noise(independent),
}
print("\n".join(estimates["camera"].lines()))

# %%
# The camera's noise is stronger in dark parts, which the sRGB curve brightens. It is correlated
# between neighbours, because demosaicing fills in two of three colours from there. The independent
# noise is the same everywhere, and not correlated.

figure, (levels, correlation) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, estimate in estimates.items():
    intensity, sigma = estimate.points[1].T  # of the green channel
    levels.plot(intensity, sigma, "o-", label=name)
    lags = np.arange(1, estimate.correlation.shape[1] + 1)
    correlation.plot(lags, estimate.correlation[0], "o-", label=name)
levels.set(title="Strength in green", xlabel="intensity, of 255", ylabel="σ, of 255")
levels.set(xlim=(0, 255), ylim=(0, None))
levels.axhline(15, color="gray", linestyle=":", label="the true σ of the independent noise")
correlation.set(title="Correlation, horizontal", xlabel="distance in pixels", ylabel="ρ")
correlation.axhline(0, color="gray", linewidth=0.8)
for ax in (levels, correlation):
    ax.legend(frameon=False)
plt.show()

# %%
# Is that true? Here the noise itself is known: what the camera added.

noise = np.concatenate(
    [
        (noisy.astype(float) - simulate_camera(each, shot=0, read=0))[..., 1].ravel()
        for noisy, each in zip(camera, photographs, strict=True)
    ]
)
estimated = estimates["camera"].level[1]
print(f"σ of green: {noise.std():.1f} over all pixels, {estimated:.1f} estimated")

# %%
# The two differ because the estimate is that of the median picture's flat parts, and the noise
# depends on the brightness.
#
# What to train with
# ------------------

for name, estimate in estimates.items():
    print(f"{name}:")
    print("\n".join(advise(estimate).lines()), "\n")

# %%
# On the command line
# -------------------
#
# .. code-block:: sh
#
#    cbsn noise photos/ --figure noise.png
