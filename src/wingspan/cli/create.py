"""`wingspan create`: a checkpoint with random weights, to run an architecture without having trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def create(
    model: Annotated[str, typer.Argument(help="A preset's name, a config.json, or a folder that has one.")],
    folder: Annotated[Path, typer.Argument(help="Where to write it; must not hold a checkpoint yet.")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the weights.")] = 0,
) -> None:
    """Write a checkpoint of this architecture with random BF16 weights.

    Examples:

      wingspan create seed-small /tmp/seed-small

      wingspan run /tmp/seed-small --ranks 16 --prompt "def main():"
    """
    from wingspan.cli.outputs import check_output_folder
    from wingspan.cli.runtime_import import need_runtime
    from wingspan.report.units import bytes_text
    from wingspan.runtime.setup.config_facts import config_facts
    from wingspan.runtime.setup.model_folder import find_model

    path = find_model(model)
    check_output_folder(folder)
    config_facts(path)
    need_runtime()
    from wingspan.runtime import api as runtime

    described = runtime.describe(path)
    runtime.write_random_checkpoint(described.config, folder, seed)
    size_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    print(f"{folder}: {described.config.model_type}, random weights of seed {seed}, {bytes_text(size_bytes)}")
