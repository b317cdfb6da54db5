"""JOWA: one transformer as world model and Q-critic, trained offline, planning in imagination."""

__version__ = "0.1.0"
