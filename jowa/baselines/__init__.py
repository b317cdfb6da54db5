"""Training the rivals that the agent is compared with: ``python -m jowa.baselines mtbc|mgdt|scaled-ql``."""
