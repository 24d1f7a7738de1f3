"""Files of requests: public traces, obvious columns, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wingspan.errors import InputError
from wingspan.specs.request_files import read_requests

CASES = Path(__file__).parents[1] / "cases" / "requests"


def test_an_azure_trace_has_dates() -> None:
    read = read_requests(CASES / "azure_llm_2023_conv_head.csv")
    assert read.format == "Azure LLM inference trace"
    assert read.timed
    assert read.requests.prompt_tokens_N.tolist() == [374, 396, 879, 91, 91, 381, 1313, 388]
    assert read.requests.output_tokens_N.tolist() == [44, 109, 55, 16, 16, 84, 142, 84]
    assert read.requests.arrival_seconds_N[[0, 1]].tolist() == pytest.approx([0, 4.314579], abs=1e-5)
    assert read.remarks == ("TIMESTAMP read as dates; the first, 2023-11-16 18:15:46.6805900, is time 0",)


def test_the_dates_of_2024_have_a_zone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:01.5+00:00,5,6\n2024-05-10 00:00:00+00:00,7,8\n"
    )
    read = read_requests(path).requests
    assert read.arrival_seconds_N.tolist() == [0, 1.5]
    assert read.prompt_tokens_N.tolist() == [7, 5]


def test_burstgpt_loses_its_failed_requests(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text(
        (CASES / "burstgpt_head.csv").read_text().rstrip()
        + "\n119,GPT-4,300,0,300,API log\n120,GPT-4,0,0,0,API log\n"
    )
    read = read_requests(path)
    assert read.format == "BurstGPT trace"
    assert read.requests.arrival_seconds_N.tolist() == [0, 40, 113]
    assert read.requests.output_tokens_N.tolist() == [18, 230, 276]
    assert "2 of 5 rows dropped: no prompt or no output tokens" in read.remarks


def test_a_mooncake_trace_says_what_prompts_share(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 3]},
        {"timestamp": 0, "input_length": 1030, "output_length": 4, "hash_ids": [0, 1, 2]},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    parquet = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    for read in (read_requests(path), read_requests(parquet)):
        assert read.format == "Mooncake trace"
        assert read.requests.arrival_seconds_N.tolist() == [0, 3]
        assert read.requests.blocks is not None
        assert read.requests.blocks.ids == ((0, 1, 2), (0, 1, 3))
        assert read.requests.shared_prefix_share == 1024 / 2130
        assert "timestamp read as milliseconds; the first, 0, is time 0" in read.remarks


def test_conversations_give_lengths_without_times(tmp_path: Path) -> None:
    turns = [("system", "be kind"), ("human", "x" * 41), ("gpt", "é" * 4), ("human", "more")]
    path = tmp_path / "s.json"
    path.write_text(
        json.dumps(
            [
                {"conversations": [{"from": who, "value": text} for who, text in turns]},
                {"conversations": [{"from": "human", "value": "alone"}]},
            ]
        )
    )
    read = read_requests(path)
    assert not read.timed
    assert (read.requests.prompt_tokens_N.tolist(), read.requests.output_tokens_N.tolist()) == ([11], [2])
    assert "lengths without a tokenizer: 4 bytes of UTF-8 count as a token" in read.remarks
    assert "1 of 2 conversations dropped: fewer than two turns of text" in read.remarks


@pytest.mark.parametrize(
    ("column", "values", "seconds", "said"),
    [
        ("arrival_ms", (500, 1500), 1.0, "read as milliseconds"),
        ("arrived_at", (5, 7), 2.0, "read as seconds, which the file does not say"),
        ("timestamp", (1700000000, 1700000003), 3.0, "read as Unix time in s"),
        ("timestamp", (1700000000000, 1700000003000), 3.0, "read as Unix time in ms"),
        ("time", ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z"), 60.0, "read as dates"),
    ],
)
def test_times_are_read_as_their_name_or_values_tell(
    tmp_path: Path, column: str, values: tuple[object, object], seconds: float, said: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{column},input_tokens,completion_tokens\n{values[0]},3,4\n{values[1]},5,6\n")
    read = read_requests(path)
    assert read.requests.arrival_seconds_N.tolist() == pytest.approx([0, seconds])
    assert said in read.remarks[0]


def test_the_first_are_those_that_come_first(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n9,3,4\n1,5,6\n2,7,8\n")
    read = read_requests(path, 2)
    assert read.requests.prompt_tokens_N.tolist() == [5, 7]
    assert "the first 2 of 3 requests taken" in read.remarks


def test_files_are_read_and_sorted(tmp_path: Path) -> None:
    table = tmp_path / "r.csv"
    table.write_text("id,arrival_seconds,prompt_tokens,output_tokens\nb,2.5,20,2\na,1,10,1\n")
    lines = tmp_path / "r.jsonl"
    lines.write_text(
        '{"arrival_seconds": 2.5, "prompt_tokens": 20, "output_tokens": 2}\n\n'
        '{"arrival_seconds": 1, "prompt_tokens": 10, "output_tokens": 1}\n'
    )
    for path in (table, lines):
        read = read_requests(path).requests
        assert read.arrival_seconds_N.tolist() == [0.0, 1.5]
        assert read.prompt_tokens_N.tolist() == [10, 20]
        assert read.output_tokens_N.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.txt", "", "not .txt"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n", "holds no request"),
        (
            "r.csv",
            "arrival_seconds,prompt_tokens\n1,2\n",
            "columns not recognised .arrival_seconds, prompt_tokens.; needs",
        ),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,many,2\n", "r.csv:2: .*many"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,2,inf\n", "finite"),
        (
            "r.csv",
            "arrival_seconds,prompt_tokens,output_tokens\n1,0,2\n",
            "no request has both prompt and output",
        ),
        (
            "r.csv",
            "arrival_seconds,prompt_tokens,output_tokens\n1,3,2\n1,3\n",
            "r.csv:3: 2 values, .* 3 columns",
        ),
        ("r.csv", "0.5,300,20\n0.7,200,10\n", "r.csv:1: has no header"),
        ("r.csv", "2023-11-16 18:15:46.68,300,20\n", "r.csv:1: has no header"),
        ("r.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,3,2\n", "r.csv:2: TIMESTAMP is 'noon'"),
        (
            "r.jsonl",
            '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": ["a"]}',
            "r.jsonl:1: hash_ids",
        ),
        ("r.json", '{"a": 1}', "expected a list"),
        ("r.json", '[{"conversations": 5}]', "entry 1: a conversation must be"),
        ("r.json", '[{"conversations": []}]', "holds no request: 1 of 1 conversations dropped"),
        ("r.parquet", "PAR1", "cannot be read as Parquet"),
        (
            "r.csv",
            "arrival_seconds,prompt_tokens,output_tokens\n1,1.5,2\n",
            "prompt_tokens = 1.5; use a whole",
        ),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n1,1e30,2\n", "from 0 to"),
        ("r.csv", "arrival_seconds,prompt_tokens,output_tokens\n-1,3,2\n", "at least 0"),
        ("r.jsonl", "{oops\n", "r.jsonl:1: not JSON"),
        ("r.jsonl", "[1, 2, 3]\n", "r.jsonl:1: expected an object"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_requests(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_requests(tmp_path / "gone.csv")
