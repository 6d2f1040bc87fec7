import numpy as np
import tensorflow as tf

from cbsn.training.step_random import StepRandom


def test_rows_are_those_of_the_whole_batch():
    """Also where a batch is split into sub-images, which come one whole batch after the other."""
    for times in (1, 4):
        whole = StepRandom(3, tf.constant(5), 6).integers((times * 6, 2, 3), 9).numpy()
        part = StepRandom(3, tf.constant(5), 6, 2, 3).integers((times * 3, 2, 3), 9).numpy()
        np.testing.assert_array_equal(
            part.reshape(times, 3, 2, 3), whole.reshape(times, 6, 2, 3)[:, 2:5]
        )
        assert set(np.unique(whole)) <= set(range(9))


def test_each_draw_step_and_seed_is_another():
    draws = []
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        random = StepRandom(seed, tf.constant(step), 4)
        draws += [random.integers((4, 10), 1000).numpy() for _ in range(2)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert (a != b).mean() > 0.9
