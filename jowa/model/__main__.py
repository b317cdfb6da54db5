"""``python -m jowa.model``: how many parameters each preset has."""

from __future__ import annotations

from jowa.config import PRESETS, Preset
from jowa.errors import command
from jowa.model.world_action import WorldActionModel
from jowa.tokenizer import Tokenizer


def count_parameters(preset: Preset) -> tuple[int, int]:
    """(tokenizer, world-action model with its target head), built without memory for the weights."""
    import torch

    with torch.device("meta"):
        networks = (Tokenizer(preset.tokenizer), WorldActionModel(preset.model))
    tokenizer, model = (sum(parameter.numel() for parameter in network.parameters()) for network in networks)
    return tokenizer, model


@command
def main() -> None:
    """Print a line for each preset."""
    print(f"{'preset':8}{'layers':>8}{'width':>8}{'tokenizer':>12}{'model':>12}   (parameters, target head included)")
    for name, preset in PRESETS.items():
        tokenizer, model = (f"{count / 1e6:.2f}M" for count in count_parameters(preset))
        print(f"{name:8}{preset.model.layers:8}{preset.model.width:8}{tokenizer:>12}{model:>12}")


if __name__ == "__main__":
    main()
