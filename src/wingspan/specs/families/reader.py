"""Fields of one `config.json` under the several spellings that families give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wingspan.errors import InputError
from wingspan.limits import MOST_LAYERS, MOST_WIDTH
from wingspan.specs.reading import shown


class Reader:
    """Reads and checks fields; every error names the file and the key.

    Args:
        config: the content.
        source: where it came from.
    """

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config = config
        self.source = source
        self.type = str(config.get("model_type"))

    def optional(self, *names: str) -> Any:
        """The first of these fields that is present and not null."""
        return next((self.config[n] for n in names if self.config.get(n) is not None), None)

    def of_layer(self, layer: int) -> Reader:
        """Fields as one layer has them, where `per_layer_config` says something of it.

        Raises:
            InputError: it is no object of objects.
        """
        table = self.optional("per_layer_config")
        if table is None:
            return self
        if not isinstance(table, Mapping):
            raise InputError(f"{self.source}: per_layer_config = {shown(table)} must be an object")
        own: Any = next((table[key] for key in (str(layer), f"{layer:02d}", layer) if key in table), {})
        if not isinstance(own, Mapping):
            raise InputError(f"{self.source}: per_layer_config.{layer} = {shown(own)} must be an object")
        return Reader({**self.config, **own}, self.source)

    def integer(
        self, *names: str, default: int | None = None, most: int = MOST_WIDTH, layer: int | None = None
    ) -> int:
        """The first of these fields, a whole number from 0 to `most`.

        Args:
            names: its spellings.
            default: where none is there.
            most: what it may be.
            layer: whose number is taken where there is a list of one per layer; None: all must agree.

        Raises:
            InputError: it is missing, or no such number.
        """
        value = self.optional(*names)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"{self.source}: key {names[0]} is missing; add it")
        if isinstance(value, list) and value:
            if layer is not None and layer < len(value):
                value = value[layer]
            elif all(v == value[0] for v in value):
                value = value[0]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"{self.source}: {names[0]} = {shown(value)} must be a whole number, 0 or more")
        if value > most:
            raise InputError(f"{self.source}: {names[0]} = {value:,} is more than {most:,}")
        return value

    def flag(self, *names: str, default: bool) -> bool:
        """The first of these fields as yes or no."""
        value = self.optional(*names)
        return default if value is None else bool(value)

    def listed(self, *names: str, of: type) -> list[Any] | None:
        """The first of these fields, a list of such values; None where there is none.

        Raises:
            InputError: it is no such list, or longer than any model.
        """
        value = self.optional(*names)
        if value is None:
            return None
        alike = isinstance(value, list) and all(isinstance(v, of) for v in value)
        if not alike or len(value) > MOST_LAYERS:
            kind = "texts" if of is str else "whole numbers"
            raise InputError(
                f"{self.source}: {names[0]} must be a list of at most {MOST_LAYERS:,} {kind}, one a layer"
            )
        return list(value)
