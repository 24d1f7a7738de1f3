import pytest

from tests.cli.command import Command


@pytest.fixture
def wingspan(monkeypatch, capfd) -> Command:
    """The `wingspan` command."""
    return Command(monkeypatch, capfd)
