import math
from collections import Counter

import pytest
import tensorflow as tf

from benchmarks.convolutions import KINDS, Convolution, Replay, total_flop
from benchmarks.graph import find_convolutions
from benchmarks.step import OURS, StepSpec
from cbsn.errors import ConfigError
from cbsn.training.trainer import Trainer
from tests.cases import slow_except

IMAGE, KERNEL = tf.TensorSpec((2, 5, 4, 3)), tf.TensorSpec((3, 3, 3, 3))
FLOP = 2 * (2 * 5 * 4 * 3) * (3 * 3 * 3)


def _found(function, *specs):
    return find_convolutions(tf.function(function).get_concrete_function(*specs))


@pytest.mark.parametrize("precision", slow_except(("float32", "mixed_bfloat16"), "float32"))
def test_the_count_of_a_training_step_is_the_analytic_one(precision):
    spec = StepSpec(OURS, precision, filters=4, num_modules=1, batch_size=2, patch_size=60)
    trainer = spec.trainer()
    found = find_convolutions(trainer.concrete_step(spec.batch()))

    kernels = [w.shape for w in trainer.network.get_weights() if w.ndim == 4]
    weights = sum(math.prod(kernel) for kernel in kernels)
    pixels = 2 * 60 * 60
    # Blind on all pixels, not blind on all, and, without gradients, blind on one of four.
    assert total_flop(found, "forward") == 2 * weights * pixels * 2.25
    assert total_flop(found, "filter gradient") == 2 * weights * pixels * 2
    # Nobody asks for the gradient of the picture.
    head = math.prod(kernels[0])
    assert total_flop(found, "input gradient") == 2 * (weights - head) * pixels * 2
    assert total_flop(found) == sum(total_flop(found, kind) for kind in KINDS)

    layers = precision.removeprefix("mixed_")
    assert {c.dtype for c in found if c.kernel != (1, 1, 64, 3)} == {layers}
    assert {c.dtype for c in found if c.kernel == (1, 1, 64, 3)} == {"float32"}


@pytest.mark.slow
def test_accumulated_parts_count_one_by_one():
    spec = StepSpec(OURS, "float32", filters=4, num_modules=1, batch_size=3, patch_size=30)
    whole, parts = (
        find_convolutions(Trainer(spec.recipe(), accumulate=n).concrete_step(spec.batch()))
        for n in (1, 3)
    )
    assert whole.total() == parts.total() / 3
    for kind in KINDS:
        assert total_flop(whole, kind) == total_flop(parts, kind)


def test_gradients_and_calls():
    @tf.function(autograph=False)
    def inner(image, kernel):
        return tf.nn.conv2d(image, kernel, 1, "SAME")

    def outer(image, kernel):
        with tf.GradientTape() as tape:
            tape.watch([image, kernel])
            y = inner(inner(image, kernel), kernel)
        return y, tape.gradient(y, [image, kernel])

    found = _found(outer, IMAGE, KERNEL)
    assert total_flop(found) == 6 * FLOP
    assert {convolution.kind: n for convolution, n in found.items()} == dict.fromkeys(KINDS, 2)


def test_what_nobody_needs_is_left_out():
    def function(image, kernel):
        tf.nn.conv2d(image, kernel, 1, "SAME")
        return image

    assert not _found(function, IMAGE, KERNEL)


def test_loops_count_as_often_as_they_run():
    def function(image, kernel):
        for i in tf.range(2, 9, 2):
            image = tf.nn.conv2d(image, kernel, 1, "SAME") * tf.cast(i, tf.float32)
        return image

    assert [*_found(function, IMAGE, KERNEL).values()] == [4]


def test_the_larger_branch_counts():
    def function(image, kernel, condition):
        if condition:
            image = tf.nn.conv2d(image, kernel, 1, "SAME")
            image = tf.nn.conv2d(image, kernel, 1, "SAME")
        else:
            image = tf.nn.conv2d(image, kernel, 1, "SAME")
        return image

    assert [*_found(function, IMAGE, KERNEL, tf.TensorSpec((), tf.bool)).values()] == [2]


def _endless(image, kernel):
    while tf.reduce_sum(image) > 0:
        image = tf.nn.conv2d(image, kernel, 1, "SAME")
    return image


@pytest.mark.parametrize(
    ("function", "specs", "message"),
    [
        (_endless, (IMAGE, KERNEL), "How often"),
        (tf.matmul, (tf.TensorSpec((2, 2)), tf.TensorSpec((2, 2))), "Received: MatMul"),
        (
            lambda image, kernel: tf.nn.conv2d(image, kernel, 1, "SAME"),
            (tf.TensorSpec((None, 5, 4, 3)), KERNEL),
            "shapes of all convolutions must be known",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(function, specs, message):
    with pytest.raises(ConfigError, match=message):
        _found(function, *specs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_replay_runs_every_kind(dtype, padding):
    output = (2, 5, 4, 6) if padding == "SAME" else (2, 3, 2, 6)
    attributes = (("strides", (1, 1, 1, 1)), ("padding", padding))
    attributes += (("explicit_paddings", ()), ("dilations", (1, 1, 1, 1)))
    shapes = ((2, 5, 4, 3), (3, 3, 3, 6), output)
    convolutions = Counter(
        {Convolution(kind, *shapes, dtype, attributes): i + 1 for i, kind in enumerate(KINDS)}
    )
    for convolution, result in zip(convolutions, (output, *shapes[:2]), strict=True):
        operands = [tf.ones(shape, dtype) for shape in convolution.operands()]
        assert tuple(convolution.apply(*operands).shape) == result
    sample = Replay(convolutions)()
    assert sample["seconds"] == pytest.approx(sum(sample[kind] for kind in KINDS))
    assert all(sample[kind] > 0 for kind in KINDS)
