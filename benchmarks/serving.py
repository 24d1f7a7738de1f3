"""`wingspan serve` beside other servers on this machine: tokens per CPU second under the same requests.

One server at a time, in rounds: each is started, warmed up, and given the same prompts, so many under way. What it
spends is the CPU time of all its processes; this process, which sends, is not counted. Servers that are not installed
are left out, and that is said.

    python -m benchmarks.serving --transformers /path/to/one/bin/python --vllm /path/to/another/bin/python --rounds 3

Each is the python of an environment: with `transformers[serving]` and `accelerate`; with vLLM's build for CPUs.

The model is a Qwen3-MoE of random weights: 161 million, 32 experts of which a token takes 4. No answer ends early.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx2 as httpx
import numpy as np
import psutil
import typer

_READY_SECONDS = 300
_TOKENIZER = Path("models/tiny")
_CONFIG = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 1536,
    "moe_intermediate_size": 336,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "norm_topk_prob": True,
    "max_position_embeddings": 2048,
    "dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": None,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Server:
    """One way to serve the model.

    Args:
        name: for the table.
        command: with {folder} and {port} to be filled in.
        environment: beside this process's.
        by_folder: requests name the model's folder, not what `/v1/models` lists.
    """

    name: str
    command: Sequence[str]
    environment: tuple[tuple[str, str], ...] = ()
    by_folder: bool = False


@dataclass(frozen=True)
class Spent:
    """What a load took: CPU time of the server and of its first process (ours answers calls there); by the clock."""

    tokens: int
    cpu_seconds: float
    front_seconds: float
    seconds: float


def servers(transformers: Path | None, vllm: Path | None, ranks: Sequence[int]) -> Iterator[Server]:
    """Those that can be started."""
    ways = [(1, {"OMP_NUM_THREADS": "1"})] if 1 in ranks else []
    for count, environment in [*ways, *((count, dict[str, str]()) for count in ranks)]:
        name = f"wingspan, {count} rank{'s' if count > 1 else ''}"
        yield Server(
            name + (" of one thread" if environment else ""),
            [
                sys.executable,
                "-m",
                "wingspan.cli.main",
                "serve",
                "{folder}",
                "--ranks",
                str(count),
                "--port",
                "{port}",
            ],
            tuple(environment.items()),
        )
    if transformers is not None:
        yield Server(
            "transformers serve, continuous batching",
            [
                *(str(transformers), "-m", "transformers.cli.transformers", "serve", "{folder}"),
                *("--port", "{port}", "--continuous-batching", "--device", "cpu", "--dtype", "bfloat16"),
            ],
            by_folder=True,
        )
    if vllm is not None:
        yield Server(
            "vLLM for CPUs",
            [
                *(
                    str(vllm),
                    "-m",
                    "vllm.entrypoints.openai.api_server",
                    "--model",
                    "{folder}",
                    "--port",
                    "{port}",
                ),
                *("--dtype", "bfloat16", "--max-model-len", "2048"),
            ],
            (("VLLM_CPU_KVCACHE_SPACE", "1"),),
        )


def write_model(folder: Path) -> None:
    """The model with random weights, and the shipped model's tokenizer."""
    vocabulary = json.loads((_TOKENIZER / "config.json").read_text())["vocab_size"]
    given = folder / "given"
    given.mkdir(parents=True)
    (given / "config.json").write_text(json.dumps(_CONFIG | {"vocab_size": vocabulary}))
    create = [sys.executable, "-m", "wingspan.cli.main", "create", str(given), str(folder / "model")]
    subprocess.run(create, check=True, capture_output=True)
    for file in _TOKENIZER.glob("*token*"):
        shutil.copy(file, folder / "model")


@contextmanager
def started(server: Server, folder: Path, log: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The server, ready; its process and address. It and all its children have ended afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.format(folder=folder, port=port) for part in server.command]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=os.environ | dict(server.environment), stdout=out, stderr=out, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _until_ready(process, url, server.name, log)
        yield psutil.Process(process.pid), url
    finally:
        for ask in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, ask)
                process.wait(20)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _until_ready(process: subprocess.Popen[bytes], url: str, name: str, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise SystemExit(f"{name} did not come up:\n{log.read_text()[-2000:]}")


def cpu_seconds(process: psutil.Process) -> tuple[float, float]:
    """Of all processes of a server that live, and of the first."""
    found = []
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found.append(times.user + times.system)
    return sum(found), found[0]


def load(
    url: str, model: str, prompts: Sequence[str], tokens: int, concurrency: int, stream: bool = False
) -> int:
    """Send all prompts, so many under way; the tokens that were answered."""

    async def all_of_them() -> int:
        gate = asyncio.Semaphore(concurrency)
        async with httpx.AsyncClient(timeout=None) as client:

            async def one(prompt: str) -> int:
                body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
                if stream:
                    body |= {"stream": True, "stream_options": {"include_usage": True}}
                async with gate:
                    answer = await client.post(f"{url}/v1/completions", json=body)
                if answer.status_code != 200:
                    raise SystemExit(f"{url}: status {answer.status_code}: {answer.text[:500]}")
                last = answer.text.split("data: ")[-2] if stream else answer.text
                return int(json.loads(last)["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*(one(prompt) for prompt in prompts)))

    return asyncio.run(all_of_them())


def measured(
    server: Server, folder: Path, loads: Sequence[int], tokens: int, stream: bool, log: Path
) -> dict[int, Spent]:
    """What each concurrency took one server."""
    rng = np.random.default_rng(0)
    found = {}
    with started(server, folder, log) as (process, url):
        model = str(folder) if server.by_folder else _served(url)
        load(url, model, [_prompt(rng) for _ in range(4)], 8, 4)
        for concurrency in loads:
            prompts = [_prompt(rng) for _ in range(3 * concurrency)]
            begun, before = time.monotonic(), cpu_seconds(process)
            count = load(url, model, prompts, tokens, concurrency, stream)
            seconds = time.monotonic() - begun
            spent, front = (late - early for late, early in zip(cpu_seconds(process), before, strict=True))
            found[concurrency] = Spent(count, spent, front, seconds)
    return found


def _served(url: str) -> str:
    return str(httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"])


def _prompt(rng: np.random.Generator) -> str:
    """Letters: some tokens each, and never the beginning of another prompt."""
    return "".join(rng.choice(list("abcdefghij klmnop"), size=int(rng.integers(20, 60))))


def main(
    transformers: Annotated[
        Path | None,
        typer.Option(help="Python of an environment with `transformers[serving]` and accelerate."),
    ] = None,
    vllm: Annotated[
        Path | None, typer.Option(help="Python of an environment that has vLLM for CPUs.")
    ] = None,
    ranks: Annotated[
        list[int] | None, typer.Option(help="Ranks of `wingspan serve`; may be repeated.")
    ] = None,
    concurrency: Annotated[
        list[int] | None, typer.Option(help="Under way at a time; may be repeated.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="New tokens of each request.")] = 64,
    rounds: Annotated[int, typer.Option(help="Each round starts every server once.")] = 3,
    stream: Annotated[bool, typer.Option(help="Let answers come token by token.")] = False,
    only: Annotated[str | None, typer.Option(help="Servers whose name has this.")] = None,
) -> None:
    """Print tokens per CPU second of every server, medians of the rounds, and the first process's share of the time."""
    loads = concurrency or [8, 32]
    for name, given in (("transformers", transformers), ("vllm", vllm)):
        if given is None:
            print(f"no {name}: name its environment by --{name}")
    with tempfile.TemporaryDirectory() as scratch:
        write_model(Path(scratch))
        contestants = [
            s for s in servers(transformers, vllm, ranks or [1, 2]) if only is None or only in s.name
        ]
        results: dict[tuple[str, int], list[Spent]] = {}
        for number in range(rounds):
            for server in contestants[number % len(contestants) :] + contestants[: number % len(contestants)]:
                found = measured(
                    server, Path(scratch) / "model", loads, tokens, stream, Path(scratch) / "log"
                )
                for many, spent in found.items():
                    results.setdefault((server.name, many), []).append(spent)
                    per_cpu = spent.tokens / spent.cpu_seconds
                    print(
                        f"  round {number + 1}: {server.name}, {many}: {per_cpu:.1f} tokens/CPU s", flush=True
                    )
    print(f"{'server':42}{'at once':>8}{'tokens/CPU s':>14}{'tokens/s':>10}{'first process':>15}")
    for (name, many), spents in results.items():
        per_cpu = statistics.median(s.tokens / s.cpu_seconds for s in spents)
        per_second = statistics.median(s.tokens / s.seconds for s in spents)
        front = statistics.median(s.front_seconds / s.seconds for s in spents)
        print(f"{name:42}{many:8}{per_cpu:14.1f}{per_second:10.1f}{front:15.1%}")


if __name__ == "__main__":
    typer.run(main)
