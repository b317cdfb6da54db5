"""What stays: films, screenshots, and the pictures beside an exported decision."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PyQt6.QtGui import QImage
from PyQt6.QtWidgets import QWidget

from jowa.errors import JowaError, UsageError
from jowa.files import atomic_write

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


def save_picture(widget: QWidget, path: Path) -> None:
    """Write ``widget`` as a PNG, atomically."""
    from PIL import Image

    picture = Image.fromarray(picture_of(widget))
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG", optimize=True))


class Film:
    """An MP4 or GIF in the making: pictures are encoded in a thread, and the file appears when it is complete."""

    def __init__(self, path: Path, per_second: float = 15.0) -> None:
        """Raises :class:`UsageError` for an ending that is neither, and OSError where nothing can be written."""
        if path.suffix.lower() not in KINDS:
            raise UsageError(f"{path} is no film: expected a name that ends in {' or '.join(KINDS)}")
        self.path, self.per_second = path, per_second
        self.pictures = self.dropped = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._waiting: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._encode, name="viewer film", daemon=True)
        self._thread.start()

    def add(self, picture: NDArray[np.uint8], wait: bool = True) -> None:
        """Add uint8 (height, width, 3); ``wait`` False: leave it out when the encoder is behind."""
        if self._error is not None:
            return
        try:
            self._waiting.put(picture, block=wait, timeout=30 if wait else None)
            self.pictures += 1
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Finish the file.  Raises what kept it from being written."""
        if self._thread.is_alive():
            self._waiting.put(None)
        self._thread.join()
        if isinstance(self._error, JowaError | OSError):
            raise self._error
        if self._error is not None:
            raise JowaError(f"{self.path} could not be encoded ({self._error}): try the other of {' and '.join(KINDS)}")

    def _encode(self) -> None:
        try:
            first = self._waiting.get()
            if first is None:
                raise UsageError("nothing was recorded: let the game run while recording")
            write = _write_gif if self.path.suffix.lower() == ".gif" else _write_mp4
            atomic_write(self.path, lambda temporary: write(temporary, self._pictures(first), self.per_second))
        except BaseException as error:
            self._error = error
            with contextlib.suppress(queue.Empty):  # whoever waits for room must not wait for ever
                while True:
                    self._waiting.get_nowait()

    def _pictures(self, first: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """All of the size of the first, cut to even numbers as video wants them."""
        height, width = (side // 2 * 2 for side in first.shape[:2])
        picture: NDArray[np.uint8] | None = first
        while picture is not None:
            page = np.zeros((height, width, 3), np.uint8)
            part = picture[:height, :width]
            page[: part.shape[0], : part.shape[1]] = part
            yield page
            picture = self._waiting.get()


def _write_gif(path: Path, pictures: Iterator[NDArray[np.uint8]], per_second: float) -> None:
    from PIL import Image

    images = (Image.fromarray(picture).quantize(128, dither=Image.Dither.NONE) for picture in pictures)
    first = next(images)
    duration = max(round(1000 / per_second), 20)
    first.save(path, format="GIF", save_all=True, append_images=images, duration=duration, loop=0)


def _write_mp4(path: Path, pictures: Iterator[NDArray[np.uint8]], per_second: float) -> None:
    try:
        import av
    except ImportError:
        raise UsageError(
            "MP4 needs PyAV, which is not installed: pip install av, or record a film that ends in .gif"
        ) from None
    from fractions import Fraction

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(per_second).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
