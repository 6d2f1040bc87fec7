import io

import numpy as np
import pytest
from keras import ops
from PIL import Image

from cbsn.augmentation.jpeg import compress


def _file(picture, quality, subsampled):
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return np.asarray(Image.open(data)).astype(float)


@pytest.mark.parametrize("quality", [60, 85, 95])
@pytest.mark.parametrize("subsampled", [False, True])
def test_as_a_file(photographs, quality, subsampled):
    """libjpeg rounds luma and chroma to integers, twice, and interpolates chroma.

    Four errors of up to half a level, of which those of chroma count up to 1.772 times, are about
    1 level in the mean of the absolute values.
    """
    picture = photographs[0][:64, 200:280]
    unit = ops.convert_to_tensor(picture[None].astype("float32") / 255)
    output = ops.convert_to_numpy(compress(unit, np.float32([quality]), np.array([subsampled])))[0]
    expected = _file(picture, quality, subsampled)
    changed = np.abs(expected - picture).mean()
    assert np.abs(output * 255 - expected).mean() < 1.3
    assert np.abs(output * 255 - picture).mean() == pytest.approx(changed, rel=0.1)


def test_gray_as_a_file(photographs):
    picture = photographs[1][:64, :64, 1]
    unit = ops.convert_to_tensor(picture[None, ..., None].astype("float32") / 255)
    output = ops.convert_to_numpy(compress(unit, np.float32([75]), np.array([True])))[0, ..., 0]
    expected = _file(picture, 75, False)
    # Transforms in integers round here and there another way.
    assert np.abs(output * 255 - expected).mean() < 0.25
    assert np.abs(expected - picture).mean() > 1
