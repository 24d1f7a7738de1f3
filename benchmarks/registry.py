"""Every type of model in one fixed deployment, beside plain transformers: what `wingspan models` says of each.

Three ranks, five prompts of other lengths of which some share a rank, a tiny random checkpoint, FP32 and BF16. With
`--write` the table of the package says what was found.

    python -m benchmarks.registry --write
    python -m benchmarks.registry --only deepseek_v4 --dtype bfloat16
"""

from __future__ import annotations

import os

# Before torch is imported: a process whose OpenMP threads have run must not fork ranks that use OpenMP.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import tempfile
import time
from pathlib import Path

import transformers

from benchmarks.architectures import Sizes
from benchmarks.fuzz_case import Case
from benchmarks.fuzz_judge import Verdict, judge
from wingspan.runtime.model.architecture import SAME_MODULES
from wingspan.runtime.model.known import architectures
from wingspan.runtime.setup.model_types import TypeSupport, TypeTable, type_table, write_type_table

DTYPES = ("float32", "bfloat16")
_PROMPTS = (
    (5, 9, 17, 3),
    (1, 2, 3, 4, 8, 9, 11, 12, 13),
    (7,),
    (2, 4, 6, 8, 10, 3, 5, 7, 9, 11, 13, 15, 17),
    (3, 1),
)


def every_type() -> list[str]:
    """Those of transformers, other names for their modules, and the reference architecture."""
    return sorted({*architectures(), *SAME_MODULES, "wingspan_moe"})


def case_of(architecture: str, dtype: str) -> Case:
    """The deployment that every type is tried in."""
    return Case(
        number=0,
        architecture=architecture,
        sizes=Sizes(),
        weights_seed=1,
        stored="float32",
        sharded=False,
        ranks=3,
        ranks_per_node=3,
        slots=2,
        transport="auto",
        dispatch=None,
        flows=("sequential", "sequential"),
        dtype=dtype,
        rebalance="off",
        prompts=_PROMPTS,
        new_tokens=4,
        ends=None,
    )


def tried(architecture: str, dtype: str) -> Verdict:
    """The verdict on one type in one dtype."""
    with tempfile.TemporaryDirectory() as folder:
        return judge(case_of(architecture, dtype), Path(folder))


def text_part(architecture: str) -> str | None:
    """The type of the part that makes text; None where that is the whole."""
    if architecture in SAME_MODULES:
        return None
    text = str(transformers.CONFIG_MAPPING[architecture]().get_text_config().model_type)
    return None if text == architecture else text


def reason(architecture: str, verdict: Verdict) -> str:
    """Why a type is refused, without its name, the file that it was said of, and the mend."""
    why = verdict.why.partition(": ")[2].partition("; ")[0]
    return why.replace(f" of type {architecture!r}", " of this type")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", help="types; the table keeps what it says of the others")
    parser.add_argument("--dtype", choices=DTYPES, help="one of both")
    parser.add_argument("--write", action="store_true", help="write the package's table")
    chosen = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    kinds = chosen.only or every_type()
    found: dict[str, TypeSupport] = {}
    different = []
    for kind in kinds:
        checked, why = [], None
        for dtype in [chosen.dtype] if chosen.dtype else DTYPES:
            begun = time.monotonic()
            verdict = tried(kind, dtype)
            said = f"{verdict.outcome}{': ' + verdict.why if verdict.why else ''}"
            print(f"{kind:24s} {dtype:8s} {time.monotonic() - begun:5.1f} s {said}", flush=True)
            if verdict.outcome == "equal":
                checked.append(dtype)
            elif verdict.outcome == "refused":
                why = reason(kind, verdict)
                break
            else:
                different.append(kind)
        found[kind] = TypeSupport(tuple(checked), why, text_part(kind))
    if chosen.write and not chosen.dtype:
        before = dict(type_table().types) if chosen.only else {}
        write_type_table(TypeTable(transformers.__version__, before | found))
    print(
        f"{len(found)} types, {sum(said.runs for said in found.values())} run, different: {different or 'none'}"
    )
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
