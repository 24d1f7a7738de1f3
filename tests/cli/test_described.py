"""Every option that says a field of a `Description` is declared once."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.cli.tree import COMMANDS
from wingspan.cli.described import _OPTIONS
from wingspan.describe import Description


def test_every_field_of_a_description_has_its_option():
    assert set(_OPTIONS) == {field.name for field in fields(Description)}


@pytest.mark.parametrize("name", ["simulate", "plan"])
def test_a_command_has_the_options_of_its_description(name):
    usual = {param.name: param for param in COMMANDS[name].params}
    assert "said" not in usual
    assert usual["source"].required
    assert usual["tokens_per_gpu"].opts == ["--tokens-per-gpu", "-b"]
    assert usual["cluster"].default is None
