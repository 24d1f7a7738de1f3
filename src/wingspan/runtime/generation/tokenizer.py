"""A checkpoint's tokenizer, by transformers' own classes: code that comes with a checkpoint is never run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from wingspan.errors import InputError
from wingspan.reading import is_lfs_pointer, json_value, lfs_pointer_error
from wingspan.runtime.model.architecture import cause

_CONFIG = "tokenizer_config.json"
_VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tekken.json",
    "tiktoken.model",
)  # fmt: skip


class Tokenizer:
    """The checkpoint's tokenizer, or none: then only ids go in and come out.

    One that cannot be loaded is no error before a text is to be encoded; `problem` says why.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = None
        self.problem: str | None = None
        """Why there is no text, though the checkpoint has a tokenizer; None where it loads, or there is none."""
        self._none = f"{folder} has no tokenizer"
        files = [folder / name for name in (_CONFIG, *_VOCABULARIES) if (folder / name).is_file()]
        if files:
            try:
                self._tokenizer = _load(folder, files)
            except InputError as error:
                self.problem = str(error)

    @property
    def why_no_text(self) -> str | None:
        """Why no text can be encoded; None where it can."""
        return None if self._tokenizer is not None else self.problem or self._none

    @property
    def backend(self) -> Any:
        """Transformers' own tokenizer; None where there is none."""
        return self._tokenizer

    @property
    def chat_template(self) -> str | None:
        """The checkpoint's template of conversations; None where it has none."""
        return getattr(self._tokenizer, "chat_template", None)

    def apply_chat_template(self, messages: Sequence[object], tools: Sequence[object] | None) -> list[int]:
        """Ids of a conversation, ready for the model to answer; whatever the template raises passes through."""
        ids = self._tokenizer.apply_chat_template(
            list(messages), tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with the special tokens that the model expects in front."""
        if self.why_no_text:
            raise InputError(self.why_no_text)
        try:
            return list(self._tokenizer(text)["input_ids"])
        except Exception as error:
            raise InputError(f"the tokenizer cannot encode {text[:40]!r}: {cause(error)}") from None

    def decode(self, ids: Sequence[int]) -> str | None:
        """Text of ids; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _load(folder: Path, files: Sequence[Path]) -> Any:
    for file in files:
        if is_lfs_pointer(file):
            raise lfs_pointer_error(file)
    said = _read(folder / _CONFIG)
    name = said.get("tokenizer_class") or _read(folder / "config.json").get("tokenizer_class")
    if name is not None:
        _check_class(folder, name, own_code="auto_map" in said)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # A panic in the Rust code of tokenizers is no Exception.
        if "auto_map" in said:
            raise _needs_code(folder, name) from None
        raise InputError(f"{folder}: transformers cannot load its tokenizer: {cause(error)}") from None


def _check_class(folder: Path, name: object, *, own_code: bool) -> None:
    """Raise `InputError` where a class is not a tokenizer of transformers."""
    found = tokenizer_class_from_name(name) if isinstance(name, str) else None
    found = found or (tokenizer_class_from_name(f"{name}Fast") if isinstance(name, str) else None)
    if isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase):
        return
    if own_code:
        raise _needs_code(folder, name)
    raise InputError(
        f"{folder / _CONFIG}: tokenizer_class {name!r} is none of transformers' tokenizers; where tokenizer.json says "
        "everything, write PreTrainedTokenizerFast"
    )


def _needs_code(folder: Path, name: object) -> InputError:
    return InputError(
        f"{folder / _CONFIG}: tokenizer {name or ''} needs the code that auto_map names, and a checkpoint's code is "
        "never run; use a version of it with tokenizer.json and a tokenizer_class of transformers"
    )


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        data = json_value(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not JSON ({error}); copy the file again") from None
    if not isinstance(data, dict):
        raise InputError(f"{file}: expected an object, found {type(data).__name__}; copy the file again")
    return data
