"""Recorded play: the store on disk, recording into it, and the samples that training draws from it."""

from jowa.data.loader import Prefetcher, SegmentLoader, read_segment
from jowa.data.segments import SegmentIndex, SegmentSampler
from jowa.data.store import EpisodeInfo, EpisodeStore
from jowa.data.writer import EpisodeWriter

__all__ = [
    "EpisodeInfo",
    "EpisodeStore",
    "EpisodeWriter",
    "Prefetcher",
    "SegmentIndex",
    "SegmentLoader",
    "SegmentSampler",
    "read_segment",
]
