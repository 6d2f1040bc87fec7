"""A trained network as a function that denoises pictures."""

import contextlib
import hashlib
import json
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cbsn.devices import set_up
from cbsn.errors import CbsnWarning, ConfigError, ImageError
from cbsn.images.stacks.scaling import Fault, Scale, Scaling, count_missing, without_alpha
from cbsn.inference.engines.choice import (
    AGAIN,
    check,
    choose_engine,
    is_worth_measuring,
    measure,
)
from cbsn.inference.kept import KeptResult
from cbsn.inference.options import DenoiseOptions, Strength
from cbsn.inference.passes import Passes, auto_side
from cbsn.inference.pixels import Frame, Units, cast, fill_hidden
from cbsn.inference.tiling import Index
from cbsn.inference.uncertainty import Spread, Uncertainty, check_strength
from cbsn.inference.volumes import not_for_pictures, turned
from cbsn.models.loading import load_model
from cbsn.noise.repair import parse_repairs, repair_picture
from cbsn.precision import choose_precision
from cbsn.recipes import Recipe
from cbsn.value_range import ValueRange, row_blocks, value_range

_DEFAULTS = DenoiseOptions()


class Denoiser:
    """Denoises pictures of any size, gray or RGB, tile by tile; or volumes, see `scaled`.

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
        side: int, the side of the tiles in pixels; None for the whole picture at once. By default
            the tiles of volumes have other sides, which depend on the volume.
        strength: a `Strength`, for luma and colour.
        repaired: int, how many pixels of pictures have been repaired so far, as the options say.

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
        self.repaired = 0
        self._source: str | None = None
        self._uncertainty: Uncertainty | None = None  # while `estimating`
        self._kept: KeptResult | None = None  # while `keeping`
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
            hole=options.hole,
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
                if self.options.self_ensemble or self._uncertainty:
                    pixels *= len(self.network.orientations)
                again = self.options.engine == AGAIN
                if again or is_worth_measuring(self.network, pixels):
                    self._choice = measure(self._precision, self.recipe, self.network)
                    self._is_checked = True
                    self._passes = self._make_passes()
            elif self._choice.engine.is_checked and not self._is_checked:
                check(self._choice.engine, self.recipe, self.network)
                self._is_checked = True

    @property
    def of_volumes(self) -> bool:
        """Whether the network has three dimensions, so that it denoises volumes, no pictures."""
        return self.network.dimensions == 3

    def check_takes_pictures(self, what: str = "this is a picture") -> None:
        """Raises an ImageError if the model denoises volumes.

        Args:
            what: that which is no volume, for the message. Default "this is a picture".
        """
        if self.of_volumes:
            raise ImageError(not_for_pictures(what))

    def _make_passes(self) -> Passes:
        options, engine = self.options, self._choice.engine
        if options.tile == "auto":
            self.side = auto_side(self.network, engine)
        else:
            self.side = int(options.tile or 0) or None
        each_its_own = options.tile == "auto" and self.of_volumes
        return Passes(
            self.recipe,
            self.network,
            engine,
            side="auto" if each_its_own else self.side,
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
                integers above `white`; or if the model denoises volumes.
            ModelError: if the network returns values that are not finite. A picture denoised in
                place is then lost.
            MemoryError: if memory does not suffice even for small parts of a tile.
        """
        image = np.asarray(image)
        self.check_takes_pictures()
        _check(image, "A picture", (2, 3))
        output = image if in_place else image.copy()
        native = output.astype(output.dtype.newbyteorder("="), copy=False)
        self._denoise(native[None] if native.ndim == 3 else native[None, ..., None], white, on_tile)
        if native is not output:
            output[...] = native
        return output

    def with_uncertainty(
        self,
        image: np.ndarray,
        on_tile: Callable[[float], None] = lambda share: None,
        *,
        in_place: bool = False,
        white: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Denoises one picture, and estimates how far each pixel is likely to be from the truth.

        The estimate is the spread of the results of the picture's eight orientations, calibrated
        with noise like that of the picture; see `cbsn.inference.uncertainty`. It takes eight times
        as long as one result, whatever the options say of the self-ensemble, and some more for the
        calibration: as long again for up to 512 × 512 pixels, and no longer for larger pictures.

        Args:
            image: as for a call.
            on_tile: as for a call.
            in_place: as for a call. Default False.
            white: as for a call. Default None.

        Returns:
            The denoised picture, that of the self-ensemble; and the standard deviation of its
            error, float32 in units of the picture, [H, W] or [H, W, C] without alpha. A
            `CbsnWarning` says if the noise could not be measured, or not well.

        Raises:
            ConfigError: if the strength is 0.
            ImageError, ModelError, MemoryError: as for a call.

        Example:
            >>> clean, sigma = denoise.with_uncertainty(noisy)
            >>> likely = clean - sigma, clean + sigma  # in two of three pixels
        """
        with self.estimating() as found:
            clean = self(image, on_tile, in_place=in_place, white=white)
        sigma = found.of_picture(clean)
        if found.calibration and (note := found.calibration.note):
            warnings.warn(f"Of a picture: {note}.", CbsnWarning, stacklevel=2)
        return clean, sigma

    @contextlib.contextmanager
    def estimating(self, uncertainty: Uncertainty | None = None) -> Iterator[Uncertainty]:
        """Makes each call in the block denoise by self-ensemble, and estimate its uncertainty.

        Other threads wait until the block ends.

        Args:
            uncertainty: what estimates it. Default None: an `Uncertainty` for one picture.

        Yields:
            The `Uncertainty`, which has the estimates of the last call.

        Raises:
            ConfigError: if the strength is 0.

        Example:
            >>> with denoise.estimating() as found:
            ...     clean = denoise(noisy)
            >>> sigma = found.sigmas[0]
        """
        check_strength(self.strength)
        with self._turn:
            self._uncertainty = uncertainty or Uncertainty(seed=self.options.seed)
            try:
                yield self._uncertainty
            finally:
                self._uncertainty = None

    @contextlib.contextmanager
    def keeping(self, path: Path | None = None) -> Iterator[KeptResult]:
        """Keeps what the network returns for the one picture that is denoised in the block.

        Results of any strength can then be made of it, without the network: they are those of a
        denoiser with that strength. Other threads wait until the block ends.

        Args:
            path: file to keep it in, `.npy`, which takes 4 bytes for each value of the picture.
                Default None: it stays in memory.

        Yields:
            The `KeptResult`, which is complete after the block.

        Raises:
            ConfigError: if the model was trained on stacks, whose values it sees otherwise.

        Example:
            >>> noisy = read_picture("photo.png").pixels
            >>> with denoise.keeping() as kept:
            ...     clean = denoise(noisy, white=value_range(noisy.dtype))
            >>> kept.blend(noisy, Strength(0.7))
        """
        if self.scaling:
            raise ConfigError(
                "Results of a model that was trained on stacks cannot be kept: denoise again with "
                f"another strength. Received: a model of the recipe {self.recipe.name!r}"
            )
        with self._turn:
            self._kept = KeptResult(self.options.rounding, path)
            try:
                yield self._kept
            finally:
                self._kept.end()
                self._kept = None

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
        try:
            images = np.asarray(images)
        except ValueError as error:  # a list of arrays
            raise ImageError(
                f"A batch holds pictures of one shape: pass others one by one ({error})."
            ) from error
        self.check_takes_pictures("these are pictures")
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
        """Denoises planes of a stack, or a volume of which they are the planes, with any values.

        The network sees them as `scale` says, so all planes with one scale are treated alike, and
        so are parts of a plane. Values beyond 0 and 1 are not clipped. Faulty pixels, see
        `Scale.faulty`, stay as they are, and do not count.

        A network of volumes takes the planes as one volume, in their order along z; it sees nothing
        beyond the first and the last. Other networks denoise each plane by itself.

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
        scaled = np.empty(images.shape, np.float32)
        for image, fault, out in zip(images, faults, scaled, strict=True):
            seen = image if fault is None else fault[1].reshape(image.shape)
            for rows in row_blocks(out):
                out[rows] = scale.apply(seen[rows])
        units = self._units(images.shape[1:], scale)
        frames = [Frame(each, units) for each in (scaled[None] if self.of_volumes else scaled)]
        with self._turn:
            self.prepare(math.prod(images.shape[:3]))
            if self._uncertainty:
                spans = [scale.high - scale.low] * len(frames)
                self._uncertainty(frames, spans, on_tile, self._ensemble)
            elif self.options.self_ensemble:
                self._ensemble(frames, on_tile)
            else:
                for frame, where, result in self._passes(frames, on_tile, self._finished):
                    frame.image[where] = result
        for plane, target in zip(scaled, colors, strict=True):
            for rows in row_blocks(target):
                target[rows] = cast(scale.undo(plane[rows]), dtype, self.options.rounding)
        for image, fault, target in zip(images, faults, colors, strict=True):
            if fault is not None:
                beyond = fault[0].reshape(image.shape)
                target[beyond] = cast(image[beyond], dtype, self.options.rounding)
        return output.reshape(planes.shape)

    def _units(self, shape: Sequence[int], scale: Scale) -> Units:
        """Returns the units in which the network sees scaled planes, each [H, W, C]."""
        height, width, channels = shape
        mean, deviation = self._normalization.statistics(np.zeros((1, 1, channels), np.float32))
        if self._normalization.of_picture:
            # Those of all planes, so that none is brighter than its neighbours.
            span = scale.high - scale.low
            mean = np.full_like(mean, (scale.mean - scale.low) / span)
            least = 1 / math.sqrt(height * width)
            deviation = np.full_like(deviation, max(scale.deviation / span, least))
        return Units(mean, deviation, None)

    def _denoise(
        self, images: np.ndarray, white: float | None, on_tile: Callable[[float], None]
    ) -> None:
        """Denoises pictures, [N, H, W, 1 to 4], in place."""
        if repairs := parse_repairs(self.options.repair):
            self.repaired += sum(repair_picture(image, repairs) for image in images)
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
        if self.scaling:
            # Of the first channel, as there is no saying which one a picture shows.
            planes = images[0][None] if len(images) == 1 else np.stack(images)
            made = self.scaled(planes, self.scaling.of(0), on_tile)
            for image, each in zip(images, made, strict=True):
                image[...] = each
            return
        with self._turn:
            self.prepare(len(images) * math.prod(images[0].shape[:2]))
            self._denoise_in_range(images, white, on_tile)

    def _denoise_in_range(
        self,
        images: Sequence[np.ndarray],
        white: float | None,
        on_tile: Callable[[float], None],
    ) -> None:
        """The same with black and white at 0 and 1, as in photographs."""
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
        if self._kept:
            self._kept.begin(frames[0])
        if self._uncertainty:
            spans = [found.white - found.black for found in ranges]
            units = [s / value_range(each.dtype) for s, each in zip(spans, images, strict=True)]
            self._uncertainty(frames, units, on_tile, self._ensemble)
        elif self.options.self_ensemble:
            self._ensemble(frames, on_tile)
        else:
            for frame, where, result in self._passes(frames, on_tile, self._finished):
                frame.image[where] = result
        for image, found in zip(images, ranges, strict=True):
            found.stretch(image, undo=True)

    def _ensemble(
        self,
        frames: Sequence[Frame],
        on_tile: Callable[[float], None],
        spreads: Sequence[Spread] = (),
    ) -> None:
        """Overwrites each picture with the mean of the results of its orientations.

        Each result is also added to the spread of its picture, if there are any.
        """
        orientations = self.network.orientations
        totals = [np.zeros(frame.image.shape, np.float32) for frame in frames]
        # Oriented views of the totals: adding to one turns the result back.
        oriented = [
            Frame(turned(frame.image, number), frame.units, number, turned(total, number))
            for number in orientations
            for frame, total in zip(frames, totals, strict=True)
        ]
        all_spreads = [*spreads] * len(orientations)
        spread_of = {id(each): spread for each, spread in zip(oriented, all_spreads, strict=False)}
        for frame, where, result in self._passes(oriented, on_tile):
            assert frame.total is not None
            frame.total[where] += result
            if spreads:
                spread_of[id(frame)].add(frame, where, result)
        for frame, total in zip(frames, totals, strict=True):
            for rows in row_blocks(total):
                frame.image[rows] = self._finished(frame, rows, total[rows] / len(orientations))

    def _finished(
        self, frame: Frame, where: slice | tuple[Index, ...], result: np.ndarray
    ) -> np.ndarray:
        """Returns denoised pixels, of a picture in which they are still noisy."""
        if self._kept:
            self._kept.add(frame, where, result)
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
    network = recipe.build_network(precision, fresh=False)
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
