"""Run the command line in a process where torch and its companions cannot be imported."""

import subprocess
import sys

_REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "tokenizers", "greenlet"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from wingspan.cli.main import main
sys.argv = ["wingspan", *sys.argv[1:]]
main()
"""


def run_without_torch(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _REFUSE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
