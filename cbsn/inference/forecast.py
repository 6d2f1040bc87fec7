"""How long denoising will take, predicted from its beginning."""

import time
from collections.abc import Callable

from cbsn.progress import say

_SECONDS = 3.0  # of work that are enough to predict the rest
_WORTH = 60.0  # seconds that denoising takes at least if its time is said


class Forecast:
    """Says how long pictures will take, once a small part is done, if that is more than a minute.

    Args:
        pictures: int, how many there are.
        pixels: int, how many all of them have together.
        fast_share: float from 0 to 1, the fraction of the time that `--quality fast` takes. None
            if that is not to be suggested.
        clock: function that returns seconds. Default `time.monotonic`.

    Example:
        >>> forecast = Forecast(31, 372_000_000, 0.2)
        >>> for tile in tiles:
        ...     denoise(tile)
        ...     forecast.count(tile.size)
        About 14 minutes for 31 pictures of 372 megapixels; --quality fast takes about 3 minutes.
    """

    def __init__(
        self,
        pictures: int,
        pixels: int,
        fast_share: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._pictures = pictures
        self._pixels = pixels
        self._fast_share = fast_share
        self._clock = clock
        self._start: float | None = None
        self._done = 0.0
        self._is_said = False

    def count(self, pixels: float) -> None:
        """Counts pixels as done. Of the first ones, much of the time was preparation."""
        if self._start is None:
            self._start = self._clock()
            return
        self._done += pixels
        seconds = self._clock() - self._start
        if self._is_said or seconds < _SECONDS:
            return
        self._is_said = True
        total = seconds / self._done * self._pixels
        if total >= _WORTH:
            say(self._text(total))

    def _text(self, seconds: float) -> str:
        megapixels = counted(round(self._pixels / 1e6), "megapixel")
        text = f"About {_words(seconds)} for {counted(self._pictures, 'picture')} of {megapixels}"
        if self._fast_share is not None:
            fast = self._fast_share * seconds
            takes = "less than a minute" if fast < _WORTH else f"about {_words(fast)}"
            text += f"; --quality fast takes {takes}"
        return f"{text}."


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun, in the plural where it needs one."""
    return f"{number} {noun}{'s' * (number > 1)}"


def _words(seconds: float) -> str:
    """Returns a time as words, in minutes or hours."""
    minutes = round(seconds / 60)
    return counted(minutes, "minute") if minutes < 90 else f"{round(minutes / 60)} hours"
