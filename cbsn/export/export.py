"""Exporting a trained model in one or more formats."""

import contextlib
import dataclasses
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import cbsn
from cbsn.client.transport import (
    BYTES,
    COLOR_STRENGTH,
    DENOISED,
    FILES,
    FLOATS,
    IMAGE_BYTES,
    IMAGES,
    STRENGTH,
    WITH_STRENGTH,
    WORDS,
)
from cbsn.errors import CbsnError, CbsnWarning, ConfigError, ModelError, check_number, plain_reason
from cbsn.export.graph import GraphDenoiser, stack_scale
from cbsn.export.signatures import MAX_PIXELS, ServedDenoiser
from cbsn.files import atomic_folder, atomic_path, captured_stderr, expanded, write_json
from cbsn.images.stacks.scaling import Scaling
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.engines import has_attention
from cbsn.inference.options import DenoiseOptions
from cbsn.models.folder import WEIGHTS
from cbsn.models.loading import RUN_MODELS, read_training
from cbsn.progress import say

# Files in a SavedModel's folder: its description for readers, and the server's warm-up requests.
FACTS = "assets.extra/cbsn.json"
WARMUP = "assets.extra/tf_serving_warmup_requests"

OPSET = 15  # of ONNX: old enough for any runtime of recent years (ONNX 1.10, 2021)


def write_saved_model(
    folder: Path,
    denoiser: Denoiser,
    *,
    warmup: bool | None = None,
    max_pixels: int = MAX_PIXELS,
    channel: int | None = None,
) -> None:
    """Writes a denoiser as a SavedModel with the signatures of `ServedDenoiser`.

    It runs without this package, and `FACTS` describes it. Until it is complete, the folder has a
    name that the server does not take for a version. If writing fails, nothing is left behind.

    Args:
        folder: where to write, `MODEL/VERSION`; its parent must exist.
        denoiser: what to export; the graph uses the same tiles.
        warmup: whether to write warm-up requests; ConfigError if they cannot be made. Default
            None: if they can be made, and a `CbsnWarning` otherwise.
        max_pixels: see `ServedDenoiser`.
        channel: of a model that was trained on stacks; see `GraphDenoiser`. Default None.
    """
    served = ServedDenoiser(denoiser, max_pixels, channel)
    facts = {
        **_facts(denoiser, channel),
        "precision": denoiser.network.dtype_policy.name,
        "tile": denoiser.side,
        "rounding": denoiser.options.rounding,
    }
    with atomic_folder(folder) as temporary:
        (temporary / FACTS).parent.mkdir()
        write_json(temporary / FACTS, facts)
        if warmup or warmup is None:
            try:
                _write_warmup(temporary / WARMUP, folder.parent.name, denoiser)
            except ConfigError as error:
                if warmup:
                    raise
                text = f"The model is exported without warm-up requests. {error}"
                warnings.warn(text, CbsnWarning, stacklevel=2)
        tf.saved_model.save(served, str(temporary), signatures=served.functions)


def _facts(denoiser: Denoiser, channel: int | None) -> dict[str, Any]:
    """Returns what an export says of the model and of how it denoises."""
    return {
        "cbsn": cbsn.__version__,
        "recipe": denoiser.recipe.to_dict(),
        "r3": denoiser.r3,
        "self_ensemble": denoiser.options.self_ensemble,
        "seed": denoiser.options.seed,
        "strength": denoiser.strength.luma,
        "color_strength": denoiser.strength.color,
        **_stack_facts(denoiser, channel),
    }


def _model_name(model_path: str | Path) -> str:
    """Returns the name of a model: that of its run, its folder or its file."""
    path = Path(model_path).expanduser().absolute()
    path = path.parent if path.name in (*RUN_MODELS, WEIGHTS) else path
    path = path.parent if path.name in RUN_MODELS else path
    return path.name.removesuffix(".weights.h5")


def _stack_facts(denoiser: Denoiser, channel: int | None) -> dict[str, Any]:
    """Returns what the export of a model that was trained on stacks says of its planes."""
    scale = stack_scale(denoiser, channel)
    if scale is None:
        return {}
    (finite,) = Scaling("", (scale,)).to_dict()["channels"]  # as JSON has no infinity
    return {"stack_channel": channel or 0, "scale": finite}


def _write_warmup(path: Path, model_name: str, denoiser: Denoiser) -> None:
    """Writes a request for each signature; without them, a client's first request would wait."""
    try:
        from cbsn.client.grpc_transport import prediction_log_pb2
    except ConfigError as error:
        raise ConfigError(
            "Warm-up requests, which spare the first client a wait, need the extra: pip install "
            "'cbsn[serving]' (from a clone: pip install '.[serving]')."
        ) from error
    picture = np.full((1, 64, 64, 3), 128, np.uint8)
    inputs: dict[str, dict[str, Any]] = {
        FLOATS: {IMAGES: picture / np.float32(255)},
        BYTES: {IMAGES: picture},
        FILES: {IMAGE_BYTES: [tf.io.encode_png(picture[0]).numpy()]},
    }
    if denoiser.scaling:
        plane = picture[..., : denoiser.network.channels]
        if denoiser.of_volumes:
            plane = np.repeat(plane[:, None], 16, axis=1)
        dtypes = {FLOATS: np.float32, BYTES: np.uint8, WORDS: np.uint16}
        inputs = {name: {IMAGES: plane.astype(dtype)} for name, dtype in dtypes.items()}
    shares = dict.fromkeys((STRENGTH, COLOR_STRENGTH), np.array([0.5], np.float32))
    inputs |= {name + WITH_STRENGTH: values | shares for name, values in inputs.items()}
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, values in inputs.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = signature
            for name, value in values.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


def write_litert(
    path: Path, denoiser: Denoiser, *, float16: bool, channel: int | None = None
) -> None:
    """Writes a denoiser as a LiteRT model that uses only builtin operations.

    Its signature `serving_default` takes `images`, float32 [N, H, W, C] in [0, 1] with any N, H
    and W and the network's channels C, and returns `denoised`, of the same shape and dtype. Each
    picture is denoised in one piece, with the R3, self-ensemble and strength of the denoiser:
    LiteRT has no optional inputs. A model that was trained on stacks takes planes instead, in the
    values of their files, and a model of volumes takes these, [N, Z, H, W, C].

    Args:
        path: the file to write, `*.tflite`; its folder must exist.
        denoiser: what to export.
        float16: whether to store the weights in 16 bits, which halves the file. LiteRT still
            computes in float32 where the hardware has nothing else.
        channel: of a model that was trained on stacks; see `GraphDenoiser`. Default None.

    Raises:
        ConfigError: if the network is SS-BSN's, or not float32.
        ModelError: if it cannot be converted.

    Example:
        >>> write_litert(Path("model.tflite"), denoiser, float16=False)
        >>> from ai_edge_litert.interpreter import Interpreter
        >>> denoise = Interpreter("model.tflite").get_signature_runner()
        >>> denoise(images=np.zeros((1, 5, 7, 3), np.float32))["denoised"].shape
        (1, 5, 7, 3)
    """
    check_litert(denoiser)
    denoise, spec = _in_one_piece(denoiser, channel)
    function = tf.function(
        lambda images: {DENOISED: denoise(images)}, input_signature=[spec], autograph=False
    )
    with _converting("LiteRT"):
        # Weights become constants only if a module tracks them, and it does not find those of a
        # Keras 3 network by itself.
        module = tf.Module()
        module.weights = [variable.value for variable in denoiser.network.variables]
        functions = [function.get_concrete_function()]
        converter = tf.lite.TFLiteConverter.from_concrete_functions(functions, module)
        if float16:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def check_litert(denoiser: Denoiser) -> None:
    """Raises ConfigError if the network is SS-BSN's."""
    if has_attention(denoiser.network):
        raise ConfigError(
            "LiteRT cannot compute self-similarity attention: omit litert from --format. "
            f"Received: --format litert, with recipe {denoiser.recipe.name}"
        )


def write_onnx(
    path: Path, denoiser: Denoiser, *, channel: int | None = None, strengths: bool = True
) -> None:
    """Writes a denoiser as an ONNX model.

    It takes `images`, float32 [N, H, W, C] in [0, 1] with any N, H and W and the network's channels
    C, and returns `denoised`, of the same shape and dtype. Each picture is denoised in one piece.
    The metadata describe inputs and output, and name the recipe and the version of this package. A
    model that was trained on stacks takes planes instead, in the values of their files, and a model
    of volumes takes these, [N, Z, H, W, C].

    If it has `strengths`, two more inputs, float32 scalars, are optional: `strength`, from 0 to 1,
    and `color_strength`, the same for colour; below 0, it follows `strength`. They default to the
    denoiser's.

    Args:
        path: the file to write, `*.onnx`; its folder must exist.
        denoiser: what to export, with its R3 and self-ensemble.
        channel: of a model that was trained on stacks; see `GraphDenoiser`. Default None.
        strengths: whether the strengths are inputs. Default True.

    Raises:
        ConfigError: if tf2onnx is missing, or the network is not float32.
        ModelError: if it cannot be converted.
    """
    check_onnx()
    denoise, spec = _in_one_piece(denoiser, channel)
    axes = "NZHWC" if denoiser.of_volumes else "NHWC"
    signature = [spec]
    if strengths:
        signature += [tf.TensorSpec((), tf.float32, n) for n in (STRENGTH, COLOR_STRENGTH)]

    def plain(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {DENOISED: denoise(images)}

    def blended(images: tf.Tensor, strength: tf.Tensor, color: tf.Tensor) -> dict[str, tf.Tensor]:
        return {DENOISED: denoise(images, strength, tf.where(color < 0, strength, color))}

    chosen = blended if strengths else plain
    function = tf.function(chosen, input_signature=signature, autograph=False)
    with _converting("ONNX"):
        import onnx
        import tf2onnx

        model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
        share = denoiser.strength
        # If both are equal, a request that gives only `strength` changes that of colour, too.
        color = -1.0 if share.color == share.luma else share.color
        defaults = {STRENGTH: share.luma, COLOR_STRENGTH: color} if strengths else {}
        for name, value in defaults.items():
            # In ONNX, an input is optional if it is also an initializer.
            default = onnx.numpy_helper.from_array(np.array(value, np.float32), name)
            model.graph.initializer.append(default)
        # tf2onnx reports nodes that it cannot convert, but goes on.
        onnx.checker.check_model(model)
        for tensor in (*model.graph.input, *model.graph.output):
            for axis, name in zip(tensor.type.tensor_type.shape.dim, axes[:-1], strict=False):
                axis.dim_param = name
        values = "the values of a stack's file" if denoiser.scaling else "[0, 1]"
        facts = {
            "recipe": denoiser.recipe.name,
            "cbsn": cbsn.__version__,
            IMAGES: f"float32 [{', '.join(axes)}] in {values}, RGB if C is 3, gray if C is 1",
            DENOISED: f"like {IMAGES}",
            STRENGTH: f"float32 from 0 to 1, default {share.luma:g}",
            COLOR_STRENGTH: f"the same for colour; below 0, as {STRENGTH}; default {color:g}",
            **({} if strengths else {STRENGTH: f"{share.luma:g}", COLOR_STRENGTH: f"{color:g}"}),
            "r3": str(denoiser.r3),
            "self_ensemble": str(denoiser.options.self_ensemble),
            **{n: json.dumps(fact) for n, fact in _stack_facts(denoiser, channel).items()},
        }
        onnx.helper.set_model_props(model, facts)
        content = model.SerializeToString()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def check_onnx() -> None:
    """Raises ConfigError unless the packages that `write_onnx` needs are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("tf2onnx", "onnx")):
        raise ConfigError(
            "tf2onnx is not installed: pip install 'cbsn[onnx]' (from a clone: "
            "pip install '.[onnx]'), or omit onnx from --format. Received: --format onnx"
        )


def _in_one_piece(denoiser: Denoiser, channel: int | None) -> tuple[GraphDenoiser, tf.TensorSpec]:
    """Returns a denoiser for converters, whose memory grows with the picture, and its input."""
    network = denoiser.network
    if network.dtype_policy.name != "float32":
        raise ConfigError(
            "Exports to LiteRT and ONNX must be float32: load the model with "
            f"precision='float32'. Received: {network.dtype_policy.name}"
        )
    sizes = (None,) * (network.dimensions + 1)
    spec = tf.TensorSpec((*sizes, network.channels), tf.float32, name=IMAGES)
    return GraphDenoiser(denoiser, loops=False, channel=channel), spec


@contextlib.contextmanager
def _converting(name: str) -> Iterator[None]:
    """Keeps a converter's chatter off the console and turns its errors into a ModelError."""
    try:
        with captured_stderr(shown=False):
            yield
    except CbsnError:
        raise
    except Exception as error:  # converters raise anything, and print their whole graph
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"The model cannot be converted to {name}; a SavedModel (--format saved_model) needs "
            f"no converter. Received: {reason}"
        ) from error


# The files of each format in the model's folder; the version replaces the braces.
FORMATS = {
    "saved_model": ["{}"],
    "litert": ["model-{}.tflite", "model-{}-float16.tflite"],
    "onnx": ["model-{}.onnx"],
    "bioimage": ["model-{}.zip"],
}
_MEGAPIXELS = 134  # that the SavedModel accepts by default
_VERSIONED = re.compile(r"(?:model-)?(\d+)(?:-float16)?(?:\.tflite|\.onnx|\.zip)?")


def export(
    model_path: str | Path,
    out: str | Path,
    *,
    formats: str = "saved_model",
    version: int | None = None,
    warmup: bool | None = None,
    max_megapixels: float = _MEGAPIXELS,
    stack_channel: int | None = None,
    authors: Sequence[str] = (),
    license: str | None = None,
    sample: str | Path | None = None,
    axes: str | None = None,
    options: DenoiseOptions | None = None,
) -> None:
    """Exports a trained model, and says the paths of the exports.

    Args:
        model_path: see `Denoiser.load`.
        out: folder of the model, created if missing; with the format `"bioimage"` alone, it may be
            the file to write, `*.zip`.
        formats: names from `FORMATS`, separated by commas. Default `"saved_model"`.
        version: int ≥ 1. Default None, one more than the highest in `out`.
        warmup: whether to add warm-up requests to the SavedModel. Default None: if TensorFlow
            Serving's API is installed.
        max_megapixels: the largest encoded picture that the SavedModel accepts. Default 134.
        stack_channel: of a model that was trained on stacks of several channels, the one whose
            planes the export denoises, counted from 0. Default None, the first.
        authors: of the model, for `"bioimage"`, which needs one or more; see
            `cbsn.export.bioimage_description.parse_author`.
        license: for `"bioimage"`, the SPDX identifier. Default None, Apache-2.0.
        sample: for `"bioimage"`, the image that its test is taken from. Default None, simulated.
        axes: letters of the axes of a sample that does not say what they are, see
            `cbsn.images.stacks.opening.open_stacks`. Default None.
        options: how to denoise. Default `DenoiseOptions(precision="float32")`. `precision`, `tile`
            and `rounding` apply to the SavedModel; the other formats are float32, and compute in
            one piece. The strengths are those of requests that give none. `engine` is ignored.

    Raises:
        ConfigError: if a format is unknown or does not support the model, an argument is for other
            formats, the version already exists, or a package is missing.
        ImageError: if the sample cannot be used.
        ModelError: if the model cannot be loaded or an export cannot be written.

    If there is an error, nothing is left behind.

    Example:
        >>> export("checkpoints/holiday", "served/cbsn")
    """
    options = options or DenoiseOptions(precision="float32")
    names = [name.strip() for name in formats.split(",")]
    if not {*names} <= FORMATS.keys():
        raise ConfigError(
            f"--format takes any of {', '.join(FORMATS)}, separated by commas. Received: "
            f"{formats!r}"
        )
    if version is not None:
        check_number("--version", version, 1, 2**63 - 1)  # the most for TensorFlow Serving
    check_number("--stack_channel", stack_channel or 0, 0, 9999)
    # A SavedModel counts pixels in int32.
    check_number("--max_megapixels", max_megapixels, 0, 2147, above=True)
    given: dict[str, tuple[str, Any]] = {
        "--author": ("bioimage", " --author ".join(authors)),
        "--license": ("bioimage", license),
        "--sample": ("bioimage", sample),
        "--axes": ("bioimage", axes),
        "--no-warmup" if warmup is False else "--warmup": ("saved_model", warmup),
    }
    defaults = {
        "--max_megapixels": (max_megapixels, (_MEGAPIXELS,)),
        "--tile": (options.tile, ("auto",)),
        "--rounding": (options.rounding, ("round",)),
        "--precision": (options.precision, ("auto", "float32")),
    }
    given |= {
        flag: ("saved_model", value)
        for flag, (value, usual) in defaults.items()
        if value not in usual
    }
    for flag, (format, value) in given.items():
        if value not in (None, "") and format not in names:
            received = flag if isinstance(value, bool) else f"{flag} {value}"
            raise ConfigError(
                f"{flag} is for --format {format}: omit it. Received: {received}, --format "
                f"{formats}"
            )
    if axes and not sample:
        raise ConfigError(f"--axes is for --sample: omit it. Received: --axes {axes}")
    out = expanded(out).absolute()
    if str(out).encode(errors="replace").decode() != str(out) or "\0" in str(out):
        raise ConfigError(
            f"TensorFlow cannot write to a path that is not UTF-8. Received: --out {out}"
        )
    archive = None
    if out.suffix.lower() == ".zip":
        if names != ["bioimage"] or version is not None:
            raise ConfigError(
                f"{out.name} names a single package: use --format bioimage without --version, or "
                f"the name of a folder. Received: --out {out}, --format {formats}"
            )
        archive, out = out, out.parent
    if version is None:
        there = [path.name for path in out.iterdir()] if out.is_dir() else []
        versions = [int(match[1]) for match in map(_VERSIONED.fullmatch, there) if match]
        version = max(versions, default=0) + 1
    paths = {
        name: [out / file.format(version) for file in files]
        for name, files in FORMATS.items()
        if name in names
    }
    if archive:
        paths = {"bioimage": [archive]}
    written = [path for of_format in paths.values() for path in of_format]
    for path in written:
        if path.exists():
            advice = "use another --version, or omit it for the next one"
            received = f"--out {path}" if archive else f"--version {version}"
            raise ConfigError(
                f"{path} already exists, and may be in use: "
                f"{'use another name' if archive else advice}. Received: {received}"
            )
    options = dataclasses.replace(options, engine="tensorflow")
    denoiser = Denoiser.load(model_path, options)
    # Mistakes are reported before anything is written.
    stack_scale(denoiser, stack_channel)
    if "onnx" in names:
        check_onnx()
    if "litert" in names:
        check_litert(denoiser)
    if "bioimage" in names:
        from cbsn.export import bioimage  # which imports this module

        people = bioimage.check_bioimage(authors, license or bioimage.LICENSE)
        noisy = bioimage.make_test(denoiser, sample, stack_channel, axes)
    exact = denoiser
    if options.precision != "float32" and names != ["saved_model"]:
        exact = Denoiser.load(model_path, dataclasses.replace(options, precision="float32"))
    try:
        with _all_or_nothing(out) as finished:
            if "bioimage" in names:
                bioimage.write_bioimage(
                    paths["bioimage"][0],
                    exact,
                    noisy,
                    name=_model_name(model_path),
                    authors=people,
                    license=license or bioimage.LICENSE,
                    channel=stack_channel,
                    sample=sample,
                    facts=_facts(exact, stack_channel),
                    training=read_training(model_path),
                )
                finished += paths["bioimage"]
            if "litert" in names:
                for path, float16 in zip(paths["litert"], (False, True), strict=True):
                    write_litert(path, exact, float16=float16, channel=stack_channel)
                    finished.append(path)
            if "onnx" in names:
                write_onnx(paths["onnx"][0], exact, channel=stack_channel)
                finished += paths["onnx"]
            # The last, as a server loads it as soon as it is there.
            if "saved_model" in names:
                folder, most = paths["saved_model"][0], int(max_megapixels * 1e6)
                write_saved_model(
                    folder, denoiser, warmup=warmup, max_pixels=most, channel=stack_channel
                )
    except (OSError, tf.errors.OpError) as error:
        raise ModelError(f"{out}: the model cannot be written ({plain_reason(error)}).") from error
    say("\n".join(map(str, written)))


@contextlib.contextmanager
def _all_or_nothing(folder: Path) -> Iterator[list[Path]]:
    """Makes a folder, and yields a list of what is finished in it, which an error removes."""
    created = [each for each in (folder, *folder.parents) if not each.exists()]
    finished: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield finished
    except BaseException:
        for path in finished:
            path.unlink(missing_ok=True)
        for each in created:
            with contextlib.suppress(OSError):  # it may never have been made, or have other files
                each.rmdir()
        raise
