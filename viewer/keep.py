"""What stays: films, screenshots, and the pictures beside an exported decision."""

from __future__ import annotations

import importlib.util
import itertools
import queue
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PyQt6.QtGui import QImage
from PyQt6.QtWidgets import QWidget

from jowa.errors import JowaError, UsageError
from jowa.files import atomic_write

if TYPE_CHECKING:
    from PIL import Image

KINDS = (".mp4", ".gif")
WAITING = 32
"""Pictures that may wait for the encoder: 1280 x 800 pixels take 3 MB each."""


def picture_of(widget: QWidget) -> NDArray[np.uint8]:
    """uint8 (height, width, 3): ``widget`` as it looks now, in the screen's own pixels."""
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    bits = image.constBits()
    assert bits is not None
    rows = np.frombuffer(bytes(bits.asarray(image.sizeInBytes())), np.uint8).reshape(
        image.height(), image.bytesPerLine()
    )
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def save_picture(widget: QWidget, path: Path, small: bool = False) -> None:
    """Write ``widget`` as a PNG, atomically; ``small``: in 256 colours, which takes longer."""
    from PIL import Image

    picture = Image.fromarray(picture_of(widget))
    if small:
        picture = in_256_colours(picture)
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG", optimize=small))


def in_256_colours(picture: Image.Image) -> Image.Image:
    """Half of the palette are the colours that fill most of the picture, exactly; the rest is spread over all others,
    so that a mark of a few pixels keeps its own."""
    from PIL import Image

    packed = np.asarray(picture.convert("RGB")).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    colours, place, counts = np.unique(packed, return_inverse=True, return_counts=True)
    most = colours[np.argsort(-counts, kind="stable")[:128]]
    levels = [np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.float32)
              for values in (colours, most)]  # fmt: skip
    spread = picture.quantize(256 - len(most), Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette() or []
    palette = np.concatenate([levels[1], np.array(spread, np.float32).reshape(-1, 3)])
    nearest = ((palette**2).sum(1) - 2 * levels[0] @ palette.T).argmin(1).astype(np.uint8)
    found = Image.fromarray(nearest[place].reshape(packed.shape))
    found.putpalette(palette.astype(np.uint8).tobytes())
    return found


class Film:
    """An MP4 or GIF in the making: pictures are encoded in a thread, and the file appears when it is complete."""

    def __init__(self, path: Path, per_second: float = 15.0) -> None:
        """Raises :class:`UsageError` for an ending that is neither or without PyAV, and OSError without a folder."""
        if path.suffix.lower() not in KINDS:
            raise UsageError(f"{path} is no film: expected a name that ends in {' or '.join(KINDS)}")
        if importlib.util.find_spec("av") is None:
            raise UsageError("films need PyAV, which is not installed: pip install av")
        self.path, self.per_second = path, per_second
        self.pictures = self.dropped = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._waiting: queue.Queue[NDArray[np.uint8]] = queue.Queue(WAITING)
        self._complete, self._abandoned = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._encode, name="viewer film", daemon=True)
        self._thread.start()

    def add(self, picture: NDArray[np.uint8], wait: bool = True) -> None:
        """Add uint8 (height, width, 3); ``wait`` False: leave it out when the encoder is behind."""
        while self._thread.is_alive():
            try:
                self._waiting.put(picture, block=wait, timeout=0.5)  # whoever encodes may end with an error meanwhile
                self.pictures += 1
                return
            except queue.Full:
                if not wait:
                    self.dropped += 1
                    return

    def finish(self) -> None:
        """No more pictures will come.  Returns at once."""
        self._complete.set()

    def abandon(self) -> None:
        """Leave the film: nothing is written.  Returns at once."""
        self._abandoned.set()

    @property
    def abandoned(self) -> bool:
        """Whether nothing will be written."""
        return self._abandoned.is_set()

    @property
    def left(self) -> int:
        """Pictures that wait for the encoder."""
        return self._waiting.qsize()

    @property
    def done(self) -> bool:
        """Whether the encoder has ended, and :meth:`close` would return at once."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Finish the file and wait for it.  Raises what kept it from being written."""
        self.finish()
        self._thread.join()
        if self._error is None or self.abandoned:
            return
        if isinstance(self._error, JowaError | OSError):
            raise self._error
        raise JowaError(f"{self.path} could not be encoded ({self._error}): try the other of {' and '.join(KINDS)}")

    def _encode(self) -> None:
        try:
            pictures = self._pictures()
            first = next(pictures, None)
            if first is None:
                raise UsageError("nothing was recorded: let the game run while recording")
            every = itertools.chain([first], pictures)
            atomic_write(self.path, lambda temporary: _write(temporary, self.path.suffix.lower(), every,
                                                             self.per_second))  # fmt: skip
        except BaseException as error:
            self._error = error

    def _pictures(self) -> Iterator[NDArray[np.uint8]]:
        """All of the size of the first, cut to even numbers as video wants them."""
        height = width = 0
        while not (self._complete.is_set() and self._waiting.empty()):
            try:
                picture = self._waiting.get(timeout=0.05)
            except queue.Empty:
                continue
            self._check()
            if not height:
                height, width = (side // 2 * 2 for side in picture.shape[:2])
            page = np.zeros((height, width, 3), np.uint8)
            part = picture[:height, :width]
            page[: part.shape[0], : part.shape[1]] = part
            yield page
        self._check()

    def _check(self) -> None:
        if self.abandoned:
            raise UsageError(f"{self.path} was left out")


def _write(path: Path, kind: str, pictures: Iterator[NDArray[np.uint8]], per_second: float) -> None:
    import av

    codec, stored, options = {
        ".mp4": ("libx264", "yuv420p", {"crf": "20", "preset": "veryfast"}), ".gif": ("gif", "pal8", {}),
    }[kind]  # fmt: skip
    colours = _Palette()
    with av.open(str(path), "w", format=kind[1:]) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(per_second).limit_denominator(1000), options=options)
        stream.pix_fmt = stored
        pixels: Any
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            if kind == ".gif":
                pixels, form = colours.of(picture), "pal8"
            else:
                pixels, form = picture, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format=form)))
        container.mux(stream.encode(None))


class _Palette:
    """256 colours for a GIF, kept from picture to picture as long as they fit: what stands still costs nothing."""

    FIT = 4.0
    """Mean levels, of 255, that a picture may be off."""

    def __init__(self) -> None:
        self._from: Image.Image | None = None

    def of(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """``picture`` uint8 (height, width, 3) as indices (height, width) and colours (256, 4): alpha, red, …"""
        from PIL import Image

        image, found = Image.fromarray(picture), None
        if self._from is not None:
            found = image.quantize(palette=self._from, dither=Image.Dither.NONE)
            seen = np.asarray(found.convert("RGB"))[::4, ::4].astype(np.int16)
            if np.abs(seen - picture[::4, ::4]).mean() > self.FIT:
                found = None
        if found is None:
            found = self._from = in_256_colours(image)
        colours = np.full((256, 4), 255, np.uint8)
        known = np.array(found.getpalette(), np.uint8).reshape(-1, 3)
        colours[: len(known), 1:] = known
        return np.array(found), colours
