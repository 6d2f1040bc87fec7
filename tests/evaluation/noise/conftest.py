import numpy as np
import pytest
import skimage.data


@pytest.fixture(scope="session")
def photographs():
    """Four photographs in colour, uint8, that scikit-image ships."""
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return [getattr(skimage.data, name)() for name in names]


@pytest.fixture(scope="session")
def walls():
    """Six gray pictures, uint8, of shaded areas with edges between them: flat for the most part."""
    rows, columns = np.mgrid[0:256, 0:256] / 256
    pictures = []
    for turn in range(6):
        shade = 80 + 10 * turn + 30 * np.cos(turn) * rows + 30 * np.sin(turn) * columns
        edge = np.sin(2 * turn) * (rows - 0.5) + np.cos(2 * turn) * (columns - 0.5)
        pictures.append((shade + 50 * (edge > 0)).astype("uint8")[..., None])
    return pictures


@pytest.fixture(scope="session")
def add_noise():
    """Adds noise of a standard deviation in 8-bit levels, filtered if asked for; float32."""

    def add(pictures, sigma, random, smooth=lambda noise: noise):
        noisy = []
        for picture in pictures:
            noise = smooth(random.normal(size=picture.shape))
            noisy.append(((picture + sigma * noise / noise.std()) / 255).astype("float32"))
        return noisy

    return add
