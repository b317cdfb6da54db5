"""Atari as the agent sees it: one environment, many at once, and scripted experts."""

from jowa.env.atari import AtariEnv, AtariOptions, AtariVector

__all__ = ["AtariEnv", "AtariOptions", "AtariVector"]
