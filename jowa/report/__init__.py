"""The results of the suite as one HTML page and as Markdown: ``python -m jowa.report``."""
