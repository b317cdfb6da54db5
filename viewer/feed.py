"""From the session's thread to Qt's: events become signals, and a fast agent cannot flood the window."""

from __future__ import annotations

import threading

from PyQt6.QtCore import QObject, Qt, pyqtSignal

from jowa.viewer.events import Distributions, Event, Failed, Moment, Notice, State
from jowa.viewer.session import Session

_LATEST = (Moment, State, Distributions)
"""Of these only the latest matters."""


class Feed(QObject):
    """What panels subscribe to; the signals are emitted in the window's thread."""

    moment = pyqtSignal(object)
    state = pyqtSignal(object)
    distributions = pyqtSignal(object)
    failed = pyqtSignal(object)
    notice = pyqtSignal(object)
    _arrived = pyqtSignal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.latest: Moment | None = None
        """What was shown last."""
        self._lock = threading.Lock()
        self._waiting: dict[object, Event] = {}
        self._signals = {
            Moment: self.moment, State: self.state, Distributions: self.distributions, Failed: self.failed,
            Notice: self.notice,
        }  # fmt: skip
        self._arrived.connect(self._deliver, type=Qt.ConnectionType.QueuedConnection)  # type: ignore[call-arg]
        session.subscribe(self._receive)

    def _receive(self, event: Event) -> None:
        """Called in the session's thread."""
        with self._lock:
            awake = bool(self._waiting)
            key: object = type(event) if isinstance(event, _LATEST) else object()
            self._waiting.pop(key, None)  # what comes again comes last
            self._waiting[key] = event
        if not awake:
            self._arrived.emit()

    def _deliver(self) -> None:
        with self._lock:
            events, self._waiting = list(self._waiting.values()), {}
        for event in events:
            if isinstance(event, Moment):
                self.latest = event
            self._signals[type(event)].emit(event)
