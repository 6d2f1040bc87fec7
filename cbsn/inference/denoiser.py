"""A trained network as a function that denoises pictures."""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cbsn.devices import set_up
from cbsn.errors import ImageError
from cbsn.images.stacks.scaling import Fault, Scale, Scaling, count_missing, without_alpha
from cbsn.inference.engines.choice import (
    AGAIN,
    check,
    choose_engine,
    is_worth_measuring,
    measure,
)
from cbsn.inference.options import DenoiseOptions, Strength
from cbsn.inference.passes import Passes, auto_side
from cbsn.inference.pixels import Frame, Units, cast, fill_hidden
from cbsn.inference.tiling import Index
from cbsn.models.loading import load_model
from cbsn.orientations import NUM_ORIENTATIONS, orient
from cbsn.precision import choose_precision
from cbsn.recipes import Recipe
from cbsn.value_range import ValueRange, row_blocks, value_range

_DEFAULTS = DenoiseOptions()


class Denoiser:
    """Denoises pictures of any size, gray or RGB, tile by tile.

    The recipe decides how: in one pass over the picture or over its sub-images (pixel-shuffle
    downsampling, PD), with or without random-replacing refinement (R3) afterwards. The result does
    not depend on the tiling, unless the network is not local: SS-BSN computes its attention, and
    the residual attention U-Net its means, over the tile of a pixel, overlap included.

    It may be called from several threads, which take turns. Pickled, for joblib or dask, it is the
    path of its model and the options, so the model must be found there, too; or, if it was not
    loaded from a path, its weights and the options.

    GPUs and some engines need a while for each new input size, so large pictures pass through them
    in windows of one size, several per call on a GPU. If memory runs out, each call takes fewer
    windows, then parts of one, with a `CbsnWarning`.

    Args:
        recipe: how the network was trained, and how it denoises.
        network: the trained network.
        options: how to denoise; the options for loading are ignored. Default `DenoiseOptions()`.

    Attributes:
        engine: str, what runs the network, one of `cbsn.inference.engines.ENGINES`. With the
            option "auto", denoising many pixels may change it, see `prepare`.
        choices: str, the precision and the engine, with the reasons, in words.
        r3: bool, whether R3 is applied.
        side: int, the side of the tiles in pixels; None for the whole picture at once.
        strength: a `Strength`, for luma and colour.

    Raises:
        ConfigError: if the engine cannot run the network, the network cannot use the recipe's
            border, or R3 is wanted and the network cannot be blind.

    Example:
        >>> denoise = Denoiser.load("checkpoints/my-run")
        >>> clean = denoise(noisy)
    """

    def __init__(self, recipe: Recipe, network: Any, options: DenoiseOptions = _DEFAULTS):
        self.recipe = recipe
        self.network = network
        self.options = options
        self.strength = Strength(options.strength, options.color_strength)
        self._precision_chosen = ""
        # Where the user has chosen no precision, an engine may have its own.
        given = network.dtype_policy.name
        self._precision = "auto" if options.precision == "auto" else given
        self._choice = choose_engine(options.engine, self._precision, recipe, network)
        self._is_checked = False
        self.side: int | None = None
        self._normalization = recipe.build_normalization()
        self._passes = self._make_passes()
        self.r3 = self._passes.r3
        self._source: str | None = None
        # The networks use all cores or the whole GPU anyway, and engines keep state.
        self._turn = threading.RLock()

    @property
    def engine(self) -> str:
        """The name of the engine."""
        return self._choice.engine.name

    @property
    def scaling(self) -> Scaling | None:
        """How the values of the stacks were scaled that the model was trained on, if it was."""
        return Scaling.from_dict(self.recipe.scaling) if self.recipe.scaling else None

    @property
    def choices(self) -> str:
        """The precision and the engine, with the reasons, in words."""
        return f"{self._precision_chosen}Engine {self.engine}: {self._choice.why}."

    def __repr__(self) -> str:
        """Returns the model, its precision and its engine."""
        precision = self.network.dtype_policy.name
        return f"Denoiser({self._source or self.recipe.name!r}, {precision}, {self.engine})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path of a model that was loaded, or else its weights; and the options."""
        if self._source is not None:
            return Denoiser.load, (self._source, self.options)
        precision = self.network.dtype_policy.name
        return _rebuilt, (self.recipe, precision, self.network.get_weights(), self.options)

    @classmethod
    def load(cls, model_path: str | Path, options: DenoiseOptions = _DEFAULTS) -> "Denoiser":
        """Loads a trained model.

        Args:
            model_path: a run's folder, a saved-model folder, a shipped name, or the prefix of an
                original TensorFlow 1.15 checkpoint.
            options: how to load the model, and how to denoise. Default `DenoiseOptions()`.

        Raises:
            ConfigError: if the precision or the engine is not available here.
            ModelError: if there is no such model, or it cannot be read.
        """
        precision, why = choose_precision(options.precision)
        recipe, network = load_model(
            model_path,
            recipe=options.recipe,
            channels=options.channels,
            modules=options.modules,
            precision=precision,
        )
        denoiser = cls(recipe, network, options)
        denoiser._precision_chosen = f"Precision {precision}: {why}. "
        path = Path(model_path).expanduser()
        is_there = path.exists() or path.with_name(f"{path.name}.index").exists()
        denoiser._source = str(path.absolute() if is_there else model_path)
        return denoiser

    def with_model(self, recipe: Recipe, network: Any) -> "Denoiser":
        """Returns a denoiser with the same options, of another model in the same precision."""
        denoiser = Denoiser(recipe, network, self.options)
        denoiser._precision_chosen = self._precision_chosen
        return denoiser

    def prepare(self, pixels: int) -> None:
        """Chooses the engine by measuring, if the option is "auto" and it is worth the time.

        That is for some tens of megapixels, once for each kind of network on a machine. Denoising a
        picture does so for its pixels; call this before to count those of several pictures.

        Args:
            pixels: int ≥ 0, how many pixels are going to be denoised.

        Raises:
            ConfigError: if an engine was asked for whose results are wrong here.

        Example:
            >>> denoise.prepare(sum(picture.size // 3 for picture in pictures))
        """
        with self._turn:
            if self._choice.is_open:
                if self.options.self_ensemble:
                    pixels *= NUM_ORIENTATIONS
                again = self.options.engine == AGAIN
                if again or is_worth_measuring(self.network, pixels):
                    self._choice = measure(self._precision, self.recipe, self.network)
                    self._is_checked = True
                    self._passes = self._make_passes()
            elif self._choice.engine.is_checked and not self._is_checked:
                check(self._choice.engine, self.recipe, self.network)
                self._is_checked = True

    def _make_passes(self) -> Passes:
        options, engine = self.options, self._choice.engine
        if options.tile == "auto":
            self.side = auto_side(self.network, engine)
        else:
            self.side = int(options.tile or 0) or None
        return Passes(
            self.recipe,
            self.network,
            engine,
            side=self.side,
            r3=options.r3,
            seed=options.seed,
        )

    def __call__(
        self,
        image: np.ndarray,
        on_tile: Callable[[float], None] = lambda share: None,
        *,
        in_place: bool = False,
        white: float | None = None,
    ) -> np.ndarray:
        """Denoises one picture.

        Args:
            image: [H, W] gray, or [H, W, C] with C = 1 (gray), 2 (gray and alpha), 3 (RGB) or 4
                (RGB and alpha); uint8, uint16, or float. An RGB network gets gray as three equal
                channels, and its results are averaged; a gray network gets RGB channel by channel.
                Colours where alpha is 0 are ignored.
            on_tile: called after each tile with its share of the whole work. Shares add up to 1.
            in_place: whether to write the result over `image`, so that a large picture is in
                memory only once. Default False.
            white: float > 0, the value of white. The result lies between 0 and `white`, even
                where noise takes floats beyond (unless the strength is 0). Default None, found by
                `ValueRange.of`: for example 4095 for 12 bits, or 1 for floats in [0, 1].

        Returns:
            The denoised picture, of the same shape and dtype. Alpha is unchanged, and so are the
            colours where alpha is 0.

        Raises:
            ImageError: if the image has another shape or dtype, values that are not finite, or
                integers above `white`.
            ModelError: if the network returns values that are not finite. A picture denoised in
                place is then lost.
            MemoryError: if memory does not suffice even for small parts of a tile.
        """
        image = np.asarray(image)
        _check(image, "A picture", (2, 3))
        output = image if in_place else image.copy()
        native = output.astype(output.dtype.newbyteorder("="), copy=False)
        self._denoise(native[None] if native.ndim == 3 else native[None, ..., None], white, on_tile)
        if native is not output:
            output[...] = native
        return output

    def batch(self, images: np.ndarray, *, white: float | None = None) -> np.ndarray:
        """Denoises pictures of one shape, as many at a time as memory allows.

        For many small pictures, such as patches, this is much faster than one call for each. The
        results are equal up to rounding, because each picture is normalised by its own statistics.

        Args:
            images: [N, H, W, C], with the channels and dtypes that a single picture may have.
            white: as for one picture.

        Returns:
            The denoised pictures, of the same shape and dtype.

        Raises:
            ImageError, ModelError, MemoryError: as for one picture.

        Example:
            >>> clean = denoise.batch(np.stack([picture[:128, :128], picture[128:256, :128]]))
        """
        images = np.asarray(images)
        if images.ndim == 4 and not len(images):
            return images.copy()
        _check(images, "A batch of pictures", (4,))
        output = images.astype(images.dtype.newbyteorder("="))
        self._denoise(output, white, lambda share: None)
        return output.astype(images.dtype, copy=False)

    def scaled(
        self,
        planes: np.ndarray,
        scale: Scale,
        on_tile: Callable[[float], None] = lambda share: None,
        *,
        dtype: DTypeLike | None = None,
        faults: Sequence[Fault | None] | None = None,
    ) -> np.ndarray:
        """Denoises planes of a stack, whose values have any range.

        The network sees them as `scale` says, so all planes with one scale are treated alike, and
        so are parts of a plane. Values beyond 0 and 1 are not clipped. Faulty pixels, see
        `Scale.faulty`, stay as they are, and do not count.

        Args:
            planes: [N, H, W], or [N, H, W, S] with S = 1, 3 (RGB) or 4 (RGB and alpha, which stays
                as it is); integers of at most 32 bits, or floats, all of them finite.
            scale: the values that the network sees as 0 and 1, and the statistics of all planes.
            on_tile: called after each tile with its share of the whole work. Shares add up to 1.
            dtype: of the result. Default that of the planes.
            faults: what `Scale.faulty` returns for the values or colours of each plane, if that is
                known. Default None.

        Returns:
            The denoised planes, of the same shape; integers are rounded, and clipped to what their
            dtype holds.

        Raises:
            ImageError: if values are not finite.
            ModelError: if the network returns values that are not finite.
            MemoryError: if memory does not suffice even for small parts of a tile.

        Example:
            >>> scaling = measure_scaling(stack, "deviation")
            >>> clean = denoise.scaled(stack.read((0, 0))[None], scaling.of(0))
        """
        if count_missing(planes):
            raise ImageError("The planes hold values that are not finite (NaN or infinity).")
        dtype = np.dtype(planes.dtype if dtype is None else dtype)
        images = planes[..., None] if planes.ndim == 3 else planes
        output = np.empty(images.shape, dtype)
        if images.shape[-1] == 4:
            output[..., 3:] = cast(images[..., 3:], dtype, self.options.rounding)
            images, colors = images[..., :3], output[..., :3]
        else:
            colors = output
        if self.strength == Strength(0):
            colors[...] = cast(images, dtype, self.options.rounding)
            on_tile(1.0)
            return output.reshape(planes.shape)
        if faults is None:
            faults = [scale.faulty(without_alpha(plane)) for plane in planes]
        frames = [
            self._scaled_frame(image if fault is None else fault[1].reshape(image.shape), scale)
            for image, fault in zip(images, faults, strict=True)
        ]
        with self._turn:
            self.prepare(math.prod(images.shape[:3]))
            if self.options.self_ensemble:
                self._ensemble(frames, on_tile)
            else:
                for frame, where, result in self._passes(frames, on_tile, self._finished):
                    frame.image[where] = result
        for frame, target in zip(frames, colors, strict=True):
            for rows in row_blocks(target):
                values = scale.undo(frame.image[rows])
                target[rows] = cast(values, dtype, self.options.rounding)
        for image, fault, target in zip(images, faults, colors, strict=True):
            if fault is not None:
                beyond = fault[0].reshape(image.shape)
                target[beyond] = cast(image[beyond], dtype, self.options.rounding)
        return output.reshape(planes.shape)

    def _scaled_frame(self, image: np.ndarray, scale: Scale) -> Frame:
        """Returns a plane [H, W, C] as the network sees it."""
        scaled = np.empty(image.shape, np.float32)
        for rows in row_blocks(image):
            scaled[rows] = scale.apply(image[rows])
        mean, deviation = self._normalization.statistics(scaled[:1])
        if self._normalization.of_picture:
            # Those of all planes, so that none is brighter than its neighbours.
            span = scale.high - scale.low
            mean = np.full_like(mean, (scale.mean - scale.low) / span)
            least = 1 / np.sqrt(math.prod(image.shape[:2]))
            deviation = np.full_like(deviation, max(scale.deviation / span, least))
        return Frame(scaled, Units(mean, deviation, None))

    def _denoise(
        self, images: np.ndarray, white: float | None, on_tile: Callable[[float], None]
    ) -> None:
        """Denoises pictures, [N, H, W, 1 to 4], in place."""
        if self.scaling:
            colors = images[..., : 3 if images.shape[-1] >= 3 else 1]
            # Of the first channel, as there is no saying which one a picture shows.
            colors[...] = self.scaled(colors, self.scaling.of(0), on_tile)
            return
        with self._turn:
            self.prepare(math.prod(images.shape[:3]))
            self._denoise_in_turn(images, white, on_tile)

    def _denoise_in_turn(
        self, images: np.ndarray, white: float | None, on_tile: Callable[[float], None]
    ) -> None:
        channels = images.shape[-1]
        colors = images[..., : 3 if channels >= 3 else 1]
        if channels % 2:
            self._denoise_colors([*colors], white, on_tile)
            return
        hidden = images[..., -1] == 0
        before = colors[hidden]
        seen = []
        for picture, hides in zip(colors, hidden, strict=True):
            if not hides.all():
                fill_hidden(picture, hides)
                seen.append(picture)
        if seen:
            self._denoise_colors(seen, white, on_tile)
        colors[hidden] = before

    def _denoise_colors(
        self, images: Sequence[np.ndarray], white: float | None, on_tile: Callable[[float], None]
    ) -> None:
        """Denoises the colours of pictures, each [H, W, 1 or 3], in place."""
        try:
            ranges = [ValueRange.of(image, white=white) for image in images]
        except ImageError as error:
            what = "The picture" if len(images) == 1 else "A picture of the batch"
            raise ImageError(f"{what} {error}") from None
        if self.strength == Strength(0):
            on_tile(1.0)  # not even stretched: undoing that would not restore floats exactly
            return
        frames = []
        for image, found in zip(images, ranges, strict=True):
            found.stretch(image)
            statistics = self._normalization.statistics(image)
            frames.append(Frame(image, Units(*statistics, value_range(image.dtype))))
        if self.options.self_ensemble:
            self._ensemble(frames, on_tile)
        else:
            for frame, where, result in self._passes(frames, on_tile, self._finished):
                frame.image[where] = result
        for image, found in zip(images, ranges, strict=True):
            found.stretch(image, undo=True)

    def _ensemble(self, frames: Sequence[Frame], on_tile: Callable[[float], None]) -> None:
        """Overwrites each picture with the mean of the results of its eight orientations."""
        totals = [np.zeros(frame.image.shape, np.float32) for frame in frames]
        # Oriented views of the totals: adding to one turns the result back.
        turned = [
            Frame(orient(frame.image, number), frame.units, number, orient(total, number))
            for number in range(NUM_ORIENTATIONS)
            for frame, total in zip(frames, totals, strict=True)
        ]
        for frame, where, result in self._passes(turned, on_tile):
            assert frame.total is not None
            frame.total[where] += result
        for frame, total in zip(frames, totals, strict=True):
            for rows in row_blocks(total):
                frame.image[rows] = self._finished(frame, rows, total[rows] / NUM_ORIENTATIONS)

    def _finished(
        self, frame: Frame, where: slice | tuple[Index, ...], result: np.ndarray
    ) -> np.ndarray:
        """Returns denoised pixels, of a picture in which they are still noisy."""
        noisy = frame.image[where]
        pixels = frame.units.finish(result, noisy, self.strength, self.options.rounding)
        return pixels.astype(noisy.dtype, copy=False)

    def sha256(self) -> str:
        """Returns the SHA-256 of the recipe and weights; moving or copying does not change it."""
        digest = hashlib.sha256(json.dumps(self.recipe.to_dict(), sort_keys=True).encode())
        for weights in self.network.get_weights():
            digest.update(weights.tobytes())
        return digest.hexdigest()


def _rebuilt(
    recipe: Recipe, precision: str, weights: Sequence[np.ndarray], options: DenoiseOptions
) -> Denoiser:
    """Returns a denoiser from what `Denoiser.__reduce__` has pickled."""
    set_up()
    network = recipe.build_network(precision)
    network.set_weights(weights)
    return Denoiser(recipe, network, options)


def _check(images: np.ndarray, what: str, ranks: tuple[int, ...]) -> None:
    """Raises ImageError unless the array holds a picture, or several, that can be denoised."""
    if images.dtype.kind != "f" and images.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ImageError(f"{what} must be uint8, uint16, or float. Received: dtype {images.dtype}")
    if images.ndim not in ranks or (images.ndim > 2 and not 1 <= images.shape[-1] <= 4):
        shapes = "[N, H, W, C]" if 4 in ranks else "[H, W] or [H, W, C]"
        advice = "" if 4 in ranks else "; use `batch` for several of the same shape"
        raise ImageError(
            f"{what} must be {shapes} with 1 to 4 channels{advice}. Received: shape {images.shape}"
        )
    if images.size == 0:
        raise ImageError(f"{what} must have at least one pixel. Received: shape {images.shape}")
