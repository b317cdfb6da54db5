"""Fine-tuning an agent on little data of one game: ``python -m jowa.finetune``."""
