"""The library's functions. Use them as `cbsn.denoise` and so on, which load when they are needed.

They take what the commands take, by the names of the flags, and print nothing unless `verbose`.
"""

import contextlib
import functools
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cbsn.errors import CbsnWarning, ConfigError, ImageError, brief, check_paths, check_texts
from cbsn.evaluation import evaluate as evaluation
from cbsn.evaluation.scores import Scores
from cbsn.files import expanded
from cbsn.images.finding import find_images
from cbsn.images.image_files import read_picture
from cbsn.images.picture import picture_of, squeezed
from cbsn.images.stacks.opening import is_stack, open_stacks
from cbsn.images.stacks.stack import array_stack
from cbsn.inference.denoiser import Denoiser
from cbsn.inference.options import DenoiseOptions
from cbsn.inference.stack_options import StackOptions, refuse_white
from cbsn.inference.stacks import denoise_stack, denoise_stack_with_uncertainty
from cbsn.noise import estimate
from cbsn.noise.estimate import NoiseEstimate
from cbsn.progress import shown
from cbsn.value_range import check_white, value_range

Image = str | Path | np.ndarray
"""A picture: a file, or an array [H, W] or [H, W, C]."""

DEFAULT_MODEL = "photo-large"

_FEW = 16  # columns: fewer are channels rather than an image
_loading = threading.Lock()


def load(model: str | Path = DEFAULT_MODEL, **options: Any) -> Denoiser:
    """Loads a trained model as a function from image to image.

    Args:
        model: `"photo-large"`, `"photo"`, a run's folder, a saved-model folder, or the prefix of an
            original TensorFlow 1.15 checkpoint. Default `"photo-large"`.
        **options: fields of `DenoiseOptions`, such as `strength=0.7` or `precision="float32"`.

    Returns:
        A `Denoiser`. It may be called from several threads, which take turns, and pickled.

    Raises:
        ConfigError: if an option is unknown, out of range or not available here.
        ModelError: if there is no such model, or it cannot be read.

    Example:
        >>> denoise = cbsn.load("checkpoints/holiday", strength=0.7)
        >>> clean = denoise(noisy)
    """
    if not isinstance(model, str | Path):
        raise ConfigError(f"A model is a name or a path. Received: {brief(model)}")
    return Denoiser.load(os.fspath(model), DenoiseOptions.from_names(options))


def denoise(
    image: Image | Sequence[Image],
    model: str | Path | Denoiser | Sequence[str | Path | Denoiser] = DEFAULT_MODEL,
    *,
    white: float | None = None,
    axes: str | None = None,
    uncertainty: bool = False,
    **options: Any,
) -> Any:
    """Denoises an image, or several.

    The model stays in memory for the next call with the same model and options.

    Args:
        image: an array [H, W] or [H, W, C] with C = 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB
            and alpha), uint8, uint16 or float; a picture file; a sequence of these; or a stack of
            arrays, [N, H, W] (gray) or [N, H, W, C]. Each image is denoised by itself. Or a stack
            of a microscope: a file (multi-page TIFF, OME-Zarr, …), or an array with `axes`, of
            integers or floats of any range; its planes are denoised alike.
        model: what `load` takes, or a `Denoiser`; for the channels of a stack, a list of these.
            Default `"photo-large"`.
        axes: of a stack, a letter of `TZCYXS` for each: time, depth, channel, row, column, sample
            (red, green, blue). Default None: what the file says; an array is no such stack.
        white: float > 0, the value of white. Default None, found from the values: 255 for uint8;
            for uint16 the fewest of 2, 4, … 16 bits that hold them; 1 for floats in [0, 1].
        uncertainty: whether to estimate, too, how far each pixel of the result is likely to be from
            the truth; see `Denoiser.with_uncertainty`. Default False.
        **options: fields of `DenoiseOptions`: `strength` and `color_strength` from 0 to 1,
            `self_ensemble`, `precision`, `tile`, …; for stacks, of `StackOptions`: `normalize`,
            `select`, `roi`, `nan`, `dtype`.

    Returns:
        For an array or stack, an array of the same shape and dtype; for a file, the array of its
        pixels, denoised, or a list if it holds several images; for a sequence, a list of these.
        With `uncertainty`, in the place of each result a pair: the result, and the standard
        deviation of its error, float32, of the same shape (pictures without alpha).

    Raises:
        ConfigError: if an option is unknown, out of range or not available here.
        ImageError: if an image cannot be read or denoised.
        ModelError: if there is no such model, or it cannot be read.

    Example:
        >>> clean = cbsn.denoise(noisy, strength=0.7)
        >>> clean = cbsn.denoise("photo.jpg")
        >>> clean = cbsn.denoise(series, "checkpoints/cells", axes="TYX")
        >>> clean, sigma = cbsn.denoise(noisy, uncertainty=True)
    """
    options["axes"] = axes
    stack_options = StackOptions.pop(options)
    models: list[Any] = [*model] if isinstance(model, list | tuple) else [model]
    if not models:
        raise ConfigError(f"Denoising needs a model. Received: {model!r}")
    check_white(white)
    denoisers = [_with_options(m, options) or _loaded(os.fspath(m), options) for m in models]
    if isinstance(image, list | tuple):
        return [_denoise(denoisers, each, white, stack_options, uncertainty) for each in image]
    return _denoise(denoisers, image, white, stack_options, uncertainty)


def _with_options(model: Any, options: Mapping[str, Any]) -> Denoiser | None:
    """Returns a model that is a `Denoiser`, which has its options, else None."""
    if isinstance(model, str | Path):
        return None
    if not isinstance(model, Denoiser):
        raise ConfigError(f"A model is a name, a path or a Denoiser. Received: {brief(model)}")
    if options:
        raise ConfigError(
            f"A Denoiser has its options already; give them to load. Received: {sorted(options)}"
        )
    return model


def _denoise(
    denoisers: Sequence[Denoiser],
    image: Any,
    white: float | None,
    options: StackOptions,
    uncertainty: bool,
) -> Any:
    """Denoises an image, or a stack; with `uncertainty`, returns a pair for each."""
    of_stack: Any = denoise_stack_with_uncertainty if uncertainty else denoise_stack
    path = expanded(image) if isinstance(image, str | Path) else None
    if path is not None:
        if is_stack(path, options.axes):
            refuse_white(white)
            with open_stacks(path, options.axes) as stacks:
                results = [of_stack(stack, denoisers, options) for stack in stacks]
            return results[0] if len(results) == 1 else results
    elif options.axes is not None:
        refuse_white(white)
        stack = array_stack(np.asarray(image), options.axes.upper())
        result = of_stack(stack, denoisers, options)
        order = [stack.layout.axes.index(axis) for axis in options.axes.upper()]
        if uncertainty:
            return tuple(each.transpose(order) for each in result)
        return result.transpose(order)
    if options.given():
        raise ConfigError(
            f"{options.given()[0].lstrip('-')} is for stacks: give a stack's file, or an array "
            f"with axes. Received: {' '.join(options.given())}"
        )
    if len(denoisers) > 1:
        raise ConfigError("Several models are for the channels of a stack: give one, or axes.")
    denoiser = denoisers[0]
    of_picture: Any = denoiser.with_uncertainty if uncertainty else denoiser
    if path is not None:
        if path.is_dir():
            raise ImageError(
                f"{image} is a folder; give its files, such as [*Path({str(image)!r}).iterdir()]."
            )
        picture = read_picture(path, white=white)
        own = picture.range_in_file
        highest = value_range(picture.pixels.dtype)
        if denoiser.scaling:
            own.stretch(picture.color, undo=True)  # to the file's own values
        found = of_picture(picture.pixels, in_place=True, white=highest)
        if not denoiser.scaling:
            own.stretch(picture.color, undo=True)
        if uncertainty:
            unit = 1.0 if denoiser.scaling else (own.white - own.black) / highest
            return squeezed(picture.pixels), squeezed(found[1] * np.float32(unit))
        return squeezed(picture.pixels)
    array = np.asarray(image)
    if not _is_stack(array):
        return of_picture(array, white=white)
    if uncertainty and not len(array):
        has_alpha = array.ndim == 4 and array.shape[-1] in (2, 4)
        seen = array[..., :-1] if has_alpha else array
        return array.copy(), seen.astype(np.float32)
    if uncertainty:
        pairs = [of_picture(each, white=white) for each in array]
        return tuple(map(np.stack, zip(*pairs, strict=True)))
    if array.ndim == 4:
        return denoiser.batch(array, white=white)
    return denoiser.batch(array[..., None], white=white)[..., 0]


def _loaded(model: str, options: dict[str, Any]) -> Denoiser:
    """Returns a model that is kept, unless its folder has changed."""
    stamp = None
    with contextlib.suppress(OSError):
        status = Path(model).expanduser().stat()
        stamp = status.st_ino, status.st_mtime_ns, Path.cwd()
    with _loading:  # otherwise several threads would load it
        return _cached(model, DenoiseOptions.from_names(options), stamp)


@functools.lru_cache(maxsize=2)
def _cached(model: str, options: DenoiseOptions, stamp: Any) -> Denoiser:
    return Denoiser.load(model, options)


def train(
    pictures: str | Path,
    recipe: str = "cbsn",
    *,
    out: str | Path = "checkpoints/temp",
    verbose: bool = False,
    **settings: Any,
) -> Path:
    """Trains a denoiser from noisy pictures, or continues a training that was stopped.

    Pictures that are not prepared yet are first cut into patches, in the folder `dataset`.

    Args:
        pictures: a folder, a glob, or a file, of pictures or of stacks; a folder from
            `cbsn prepare`; or `"SIDD"` or `"DND"`.
        recipe: a key of `RECIPES`. Default `"cbsn"`.
        out: folder of the run. Default `"checkpoints/temp"`.
        verbose: whether to print the log and a progress bar. Default False.
        **settings: the flags of `cbsn train`, by name: `steps=4000`, `channels=16`,
            `learning_rate=2e-3`, `noise_sigma="5-50"`, …; for stacks `axes="TZYX"`,
            `select="c=0"`, `normalize="percentile"`, `hold_out=0.1`, …

    Returns:
        The folder of the run, which is a model for `load` and `denoise`.

    Raises:
        ConfigError: if a setting is unknown, out of range, or conflicts with another one.
        DataError: if there are no pictures, or a record is damaged.
        TrainingError: if the training cannot go on; its checkpoints are intact.
        TrainingStopped: if SIGINT, SIGTERM or SIGHUP stopped it, after it was saved.

    Example:
        >>> run = cbsn.train("photos", steps=4000, channels=16, out="checkpoints/holiday")
        >>> clean = cbsn.denoise(noisy, model=run)
    """
    from cbsn.training.options import parse_settings
    from cbsn.training.run import train as run

    check_paths({"pictures": pictures, "out": out})
    check_texts({"recipe": recipe})
    out = expanded(out)
    changes, options = parse_settings(
        {"dataset": os.fspath(pictures), "checkpoints": out.parent, "name": out.name, **settings}
    )
    with _verbosely(verbose):
        return run(recipe, changes, options)


def adapt(
    pictures: Image | Iterable[Image],
    model: str | Path | Denoiser = DEFAULT_MODEL,
    *,
    minutes: float = 5.0,
    out: str | Path | None = None,
    white: float | None = None,
    seed: int = 0,
    verbose: bool = False,
    **options: Any,
) -> Denoiser:
    """Trains a model further on noisy pictures, which needs nothing clean.

    The weights stay as they are where that does not help, or where no noise is seen.

    Args:
        pictures: folders, globs, files or arrays, best of one camera with the same settings. Arrays
            are as for `denoise`.
        model: what `load` takes, or a `Denoiser`, which stays as it is. Default `"photo-large"`.
        minutes: float > 0, how long to train. Default 5.
        out: folder to save the adapted model in, too.
        white: float > 0, the value of white in all pictures. Default None, found from the values.
        seed: int ≥ 0, for everything random. Default 0.
        verbose: whether to print what is done, and a progress bar. Default False.
        **options: fields of `DenoiseOptions`, for the returned denoiser.

    Returns:
        A `Denoiser` of the adapted model.

    Raises:
        ConfigError: if a value is out of range, or the model cannot learn from noisy pictures.
        DataError: if there is no picture, or none is large enough.
        TrainingError: if the model cannot be saved.

    Example:
        >>> denoise = cbsn.adapt("photos", minutes=10, out="adapted")
        >>> clean = denoise(noisy)
    """
    from cbsn.training import adaptation

    if out is not None:
        check_paths({"out": out})
    folder = None if out is None else expanded(out)
    adaptation.check_adaptation(minutes, seed, folder)
    check_white(white)
    denoiser = _with_options(model, options) or load(model, **options)  # type: ignore[arg-type]
    sources = [*_each(_listed(pictures))]
    with _verbosely(verbose):
        adapted = adaptation.adapt(sources, denoiser, minutes, white=white, seed=seed)
    if folder is not None:
        adaptation.save_adapted(adapted, folder)
    return Denoiser(adapted.recipe, adapted.network, denoiser.options)


def evaluate(
    models: str | Path | Iterable[str | Path] = (),
    *,
    noisy: str | Path | None = None,
    clean: str | Path | None = None,
    verbose: bool = False,
    **settings: Any,
) -> list[Scores]:
    """Scores models, and other denoisers, on pictures.

    Args:
        models: one or more of what `load` takes.
        noisy: noisy pictures: a folder or a glob. Or stacks, of which each plane is scored.
        clean: clean pictures of the same names. Without them there are no metrics, but times and
            the diagnosis.
        verbose: whether to print the results, as `cbsn evaluate` does. Default False.
        **settings: the flags of `cbsn evaluate`, by name: `noise_sigma=25` (noise for the clean
            pictures, in place of `noisy`), `denoised=["folder"]`, `baselines="noisy,nlm"`,
            `out="results"`, `border=4`, …; and fields of `DenoiseOptions`.

    Returns:
        The scores of the baselines, the denoised folders and the models, in this order.

    Raises:
        ConfigError: if a setting is unknown, out of range, or conflicts with another one.
        DataError: if there are no pairs, or one of them is too small for a metric.
        ImageError: if a picture cannot be read or denoised.
        ModelError: if a model cannot be loaded.

    Example:
        >>> scores = cbsn.evaluate("photo-large", noisy="noisy", clean="clean")
        >>> scores[-1].mean("psnr")
    """
    values = {"model_paths": _listed(models), "noisy": noisy, "clean": clean, **settings}
    with _verbosely(verbose):
        return evaluation.evaluate(**evaluation.parse_settings(values))


def estimate_noise(images: Image | Iterable[Image], *, white: float | None = None) -> NoiseEstimate:
    """Estimates the noise of images from their flat parts; nothing clean is needed.

    Args:
        images: one or more folders, globs, files or arrays, as for `denoise`. All have the same
            number of channels; alpha is ignored.
        white: float > 0, the value of white. Default None, found from the values.

    Returns:
        The estimate: `lines()` is the report as text, `to_dict()` has the numbers.

    Raises:
        DataError: if there are too few flat parts, or different numbers of channels.
        ImageError: if a file cannot be read.

    Example:
        >>> cbsn.estimate_noise("photos").lines()[0]
    """
    return estimate.estimate_noise(_colors(_listed(images), white))


def _listed(given: Any) -> list[Any]:
    """Returns one or several paths or arrays as a list."""
    if isinstance(given, str | Path | np.ndarray):
        return [given]
    if not isinstance(given, Iterable):
        raise ConfigError(f"Give a path or an array, or several. Received: {brief(given)}")
    return [*given]


def _each(images: Iterable[Any]) -> Iterator[str | np.ndarray]:
    """Yields paths, and arrays [H, W] or [H, W, C]; those of a stack one by one."""
    for image in images:
        if isinstance(image, str | Path):
            yield os.fspath(image)
        elif _is_stack(array := np.asarray(image)):
            yield from array
        else:
            yield array


def _is_stack(array: np.ndarray) -> bool:
    """Returns whether an array holds several images: [N, H, W, C], or [N, H, W] of gray ones.

    Warns of three gray images, which may be the channels of one, and refuses other channels.
    """
    if array.ndim != 3 or array.shape[-1] <= 4:
        return array.ndim == 4
    if array.shape[-1] <= _FEW:
        raise ImageError(
            "An image has at most 4 channels: take others apart, or give a stack of gray images as "
            f"[N, H, W, 1]. Received: shape {array.shape}"
        )
    if array.shape[0] == 3:
        text = (
            f"The shape {array.shape} is taken for 3 gray images; give an RGB image as [H, W, 3], "
            "or the gray ones as [3, H, W, 1]."
        )
        warnings.warn(text, CbsnWarning, stacklevel=4)
    return True


def _colors(images: Iterable[Any], white: float | None) -> Iterator[np.ndarray]:
    """Yields the images without alpha, [H, W, 1 or 3]."""
    for image in _each(images):
        if isinstance(image, np.ndarray):
            yield picture_of(image, white=white).color
            continue
        for path in find_images(image):
            if is_stack(path):
                raise ImageError(
                    f"{path} is a stack, whose channels have noise of their own: use "
                    "cbsn.evaluation.stack_noise.stack_noise."
                )
            yield read_picture(path, white=white).color


def _verbosely(verbose: bool) -> contextlib.AbstractContextManager[None]:
    return shown() if verbose else contextlib.nullcontext()
