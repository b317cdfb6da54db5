"""Training: ``python -m jowa.train``."""
