"""OpenAI's own client against a server as users start it: what it asks for is what it gets."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import openai
import pytest
import torch

from tests.cli.command import REPOSITORY
from tests.runtime.plain import plain_model, plain_tokens
from tests.server.running import Server, server
from wingspan.runtime.generation.requests import Length, Request
from wingspan.runtime.generation.sampling import Sampling
from wingspan.runtime.generation.tokenizer import Tokenizer

TINY = REPOSITORY / "models" / "tiny"
PROMPT = "def main():"


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with server(
        *("--ranks", "4", "--experts-per-rank", "2", "--dtype", "float32"),
        *("--max-sequences", "16", "--max-waiting", "64"),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def plain() -> Any:
    """What plain transformers continues a prompt with, alone, greedily."""
    model, tokenizer = plain_model(TINY), Tokenizer(TINY)

    def continued(prompt: str, tokens: int) -> str:
        wanted = Request(0, tuple(tokenizer.encode(prompt)), Sampling(), Length(tokens, ignore_eos=True))
        return tokenizer.decode(plain_tokens(model, wanted)) or ""

    return continued


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **more: Any) -> Any:
    return client.completions.create(
        model="tiny", prompt=prompt, **({"temperature": 0, "max_tokens": 12} | more)
    )


def chat(client: openai.OpenAI, **more: Any) -> Any:
    messages = [{"role": "user", "content": "import "}]
    given = {"messages": messages, "temperature": 0, "max_tokens": 12} | more
    return client.chat.completions.create(model="tiny", **given)


def refused(call: Any, *arguments: Any, **more: Any) -> tuple[int, str | None, str]:
    with pytest.raises(openai.APIStatusError) as error:
        call(*arguments, **more)
    body = error.value.body
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    assert "\n" not in body["message"]
    return error.value.status_code, body["param"], body["message"]


def test_the_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len) == ("tiny", 2048)
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_completion_is_what_plain_transformers_gives(client, plain):
    answer = complete(client)
    assert answer.choices[0].text == plain(PROMPT, 12)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        11,
        12,
        23,
    )


def test_a_stream_adds_up_to_the_answer_and_ends_with_usage(client):
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == complete(client).choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 12
    assert not chunks[-1].choices


def test_a_stream_without_usage_has_none(client):
    assert all(chunk.usage is None for chunk in complete(client, stream=True))


def test_a_prompt_that_began_before_is_found_computed(served, client, plain):
    """As OpenAI tells it; in a stream too, and of several answers to a prompt once."""
    prompt = "while there_is_something_to_do: # over and over, " + PROMPT
    first = complete(client, prompt, n=2).usage
    assert first.prompt_tokens_details.cached_tokens < 16
    again = complete(client, prompt)
    size = again.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens == (size - 1) // 16 * 16 > 16
    assert again.choices[0].text == plain(prompt, 12)
    longer = list(complete(client, prompt + "!", stream=True, stream_options={"include_usage": True}))
    assert longer[-1].usage.prompt_tokens_details.cached_tokens == size // 16 * 16
    metrics = httpx.get(f"{served.address}/metrics").text
    hits, queries = (
        float(re.search(rf"^wingspan:prefix_cache_{name}_total\S* (\S+)", metrics, re.MULTILINE)[1])
        for name in ("hits", "queries")
    )
    assert 2 * (size - 16) <= hits < queries


def test_null_is_what_is_left_out(served, client):
    """Clients send it for all that their caller did not say, also for fields that this server does not have."""
    unsaid = dict.fromkeys(
        ("temperature", "n", "stop", "seed", "stream", "top_p", "logprobs", "service_tier")
    )
    body = {"prompt": PROMPT, "max_tokens": 3, "seed": 1} | unsaid | {"temperature": 0}
    answer = httpx.post(f"{served.address}/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"] == complete(client, max_tokens=3).choices[0].text
    messages = [{"role": "user", "content": PROMPT, "name": None}]
    chatted = httpx.post(
        f"{served.address}/v1/chat/completions", json={"messages": messages, "max_tokens": 1, "tools": None}
    )
    assert chatted.status_code == 200, chatted.text
    nothing = httpx.post(f"{served.address}/v1/completions", json={"prompt": None})
    assert (nothing.status_code, nothing.json()["error"]["param"]) == (400, "prompt")


def test_chat_answers_a_conversation(client, plain):
    answer = chat(client)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == plain("user: import \nassistant:", 12)


def test_chat_streams(client):
    chunks = list(chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == chat(client).choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"


def test_content_may_come_in_parts(client):
    parts = [{"type": "text", "text": "imp"}, {"type": "text", "text": "ort "}]
    assert (
        chat(client, messages=[{"role": "user", "content": parts}]).choices[0].message
        == chat(client).choices[0].message
    )


def test_several_prompts_are_answered_in_order(client):
    answer = complete(client, ["import ", PROMPT], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = [complete(client, prompt).choices[0].text for prompt in ("import ", PROMPT)]
    assert [choice.text for choice in answer.choices] == [alone[0]] * 2 + [alone[1]] * 2


def test_token_ids_are_a_prompt(client):
    ids = Tokenizer(TINY).encode(PROMPT)
    assert complete(client, ids).choices[0].text == complete(client).choices[0].text
    assert len(complete(client, [ids, ids]).choices) == 2


def test_echo_puts_the_prompt_before_the_answer(client):
    assert complete(client, echo=True).choices[0].text == PROMPT + complete(client).choices[0].text
    chunks = list(complete(client, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == PROMPT + complete(client).choices[0].text


def test_a_stop_string_is_cut_off_across_tokens(client):
    whole = complete(client, max_tokens=30).choices[0].text
    stop = whole[15:18]
    answer = complete(client, max_tokens=30, stop=[stop])
    assert answer.choices[0].text == whole[: whole.find(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 30
    kept = complete(client, max_tokens=30, stop=stop, extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].text.endswith(stop)


def test_a_seed_repeats_an_answer_and_choices_differ(client):
    first, second = (complete(client, temperature=1.5, seed=5, n=3, max_tokens=20) for _ in range(2))
    assert [c.text for c in first.choices] == [c.text for c in second.choices]
    assert len({c.text for c in first.choices}) > 1
    assert complete(client, temperature=1.5, max_tokens=20).choices[0].text != first.choices[0].text


def test_logprobs_of_a_completion_are_those_of_its_tokens(client):
    answer = complete(client, logprobs=3)
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text
    assert all(
        value == max(top.values())
        for value, top in zip(found.token_logprobs, found.top_logprobs, strict=True)
    )
    assert all(len(top) == 3 for top in found.top_logprobs)
    assert found.text_offset == list(range(12))


@pytest.mark.parametrize("stream", [False, True])
def test_echo_with_logprobs_tells_how_likely_the_prompt_was(client, stream):
    answer = complete(client, ["import ", PROMPT], echo=True, logprobs=2, max_tokens=5, n=2, stream=stream)
    found: dict[int, list[Any]] = {}
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            found.setdefault(choice.index, []).append(choice)
    assert sorted(found) == [0, 1, 2, 3]
    model, tokenizer = plain_model(TINY), Tokenizer(TINY)
    for place, choices in found.items():
        told = [choice.logprobs for choice in choices]
        tokens = [token for one in told for token in one.tokens]
        assert "".join(choice.text for choice in choices) == "".join(tokens)
        assert [at for one in told for at in one.text_offset] == list(range(len(tokens)))
        ids = tokenizer.encode("".join(tokens))
        assert len(ids) == (7, 11)[place // 2] + 5
        with torch.inference_mode():
            logprobs_NV = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        values = [value for one in told for value in one.token_logprobs]
        expected = logprobs_NV[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        assert values[0] is None
        assert values[1:] == pytest.approx(expected, abs=1e-4)
        tops = [top for one in told for top in one.top_logprobs]
        assert tops[0] is None
        assert all(len(top) == 2 for top in tops[1:])


def test_logprobs_of_a_chat(client):
    content = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [len(one.top_logprobs) for one in content] == [2] * 12
    assert bytes(content[0].bytes).decode() == content[0].token
    streamed = [
        one for chunk in chat(client, logprobs=True, stream=True) if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content
    ]  # fmt: skip
    assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in content])


def test_logit_bias_forbids_and_forces(client):
    first = complete(client, max_tokens=1).choices[0].text.encode()[0]
    assert complete(client, max_tokens=1, logit_bias={str(first): -100}).choices[0].text.encode()[0] != first
    assert complete(client, max_tokens=3, logit_bias={"65": 100}).choices[0].text == "AAA"


def test_penalties_change_what_is_repeated(client):
    plain_text = complete(client, max_tokens=40).choices[0].text
    for more in (
        {"presence_penalty": 2},
        {"frequency_penalty": 2},
        {"extra_body": {"repetition_penalty": 2}},
    ):
        text = complete(client, max_tokens=40, **more).choices[0].text
        assert len(set(text)) > len(set(plain_text)), more


def test_samplers_of_the_field_narrow_the_choice(client):
    greedy = complete(client, max_tokens=20).choices[0].text
    for more in ({"top_p": 1e-9}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}):
        assert complete(client, max_tokens=20, temperature=2, seed=3, **more).choices[0].text == greedy, more


def test_a_json_schema_is_followed(client):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["a", "b"]}},
        "required": ["n", "kind"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = chat(client, response_format=wanted, max_tokens=60).choices[0]
    value = json.loads(answer.message.content)
    assert set(value) == {"n", "kind"}
    assert answer.finish_reason == "stop"
    streamed = chat(client, response_format=wanted, max_tokens=60, stream=True)
    assert json.loads("".join(chunk.choices[0].delta.content or "" for chunk in streamed)) == value


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_when_it_must_be(client, choice, stream):
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Bern", "Graz"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    assert chat(client, tools=tools, tool_choice="auto").choices[0].message.content, (
        "free to answer as it likes"
    )
    answer = chat(client, tools=tools, tool_choice=choice, max_tokens=80, stream=stream)
    if stream:
        chunks = list(answer)
        (call,) = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        reason = chunks[-1].choices[0].finish_reason
    else:
        (call,) = answer.choices[0].message.tool_calls
        reason = answer.choices[0].finish_reason
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Bern", "Graz")
    assert reason == "tool_calls"


def test_an_answer_may_pass_its_end(client):
    end = {"256": 100}
    assert complete(client, logit_bias=end).choices[0].finish_reason == "stop"
    assert complete(client, logit_bias=end).usage.completion_tokens == 1
    passed = complete(client, logit_bias=end, extra_body={"ignore_eos": True})
    assert (passed.choices[0].finish_reason, passed.usage.completion_tokens) == ("length", 12)
    own = complete(client, extra_body={"stop_token_ids": [10]})
    assert own.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"), ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"), ({"stop": ""}, "stop.0"), ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"), ({"prompt": [999]}, "prompt"), ({"extra_body": {"colour": 1}}, "colour"),
        ({"suffix": "x"}, "suffix"), ({"logprobs": 21}, "logprobs"), ({"logit_bias": {"999": 1}}, "logit_bias"),
        ({"extra_body": {"top_k": "many"}}, "top_k"), ({"max_tokens": 4000}, "max_tokens"),
        ({"prompt": "x" * 3000}, "prompt"), ({"best_of": 3, "n": 2}, "best_of"), ({"prompt": [1.5]}, "prompt"),
        ({"stream_options": {"include_usage": True}}, "stream_options"), ({"extra_body": {"top_k": "3"}}, "top_k"),
        ({"extra_body": {"response_format": {"type": "text", "json_schema": {"schema": {}}}}},
         "response_format.json_schema"),
        ({"extra_body": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}}},
         "response_format"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_field(client, values, param):
    status, field, message = refused(complete, client, **values)
    assert (status, field) == (400, param)
    assert message


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"), ({"top_logprobs": 2}, "top_logprobs"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"), ({"messages": []}, "messages"),
        ({"tool_choice": "required"}, "tool_choice"), ({"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_do_is_refused(client, values, param):
    status, field, _ = refused(chat, client, **values)
    assert (status, field) == (400, param)


def test_what_asks_for_nothing_is_taken(client):
    plain_text = complete(client).choices[0].text
    assert complete(client, best_of=1, suffix="").choices[0].text == plain_text
    again = chat(client, max_tokens=5, max_completion_tokens=5, parallel_tool_calls=False)
    assert again.choices[0].message.content


def test_who_speaks_is_said_where_there_is_no_template(client, plain):
    messages = [
        {"role": "user", "name": "ann", "content": "2 + 2?"},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
    ]
    answer = chat(client, messages=messages)
    assert answer.choices[0].message.content == plain("user ann: 2 + 2?\ntool c1: 4\nassistant:", 12)


def test_another_model_is_not_found(client):
    status, param, _ = refused(client.completions.create, model="gpt-4", prompt="x")
    assert (status, param) == (404, "model")


def test_what_is_no_json_is_refused(served):
    answer = httpx.post(
        f"{served.address}/v1/completions", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]
    assert httpx.get(f"{served.address}/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert httpx.get(f"{served.address}/v1/completions").status_code == 405


def test_calls_keep_their_names(served):
    answer = httpx.get(f"{served.address}/health", headers={"X-Request-Id": "mine-7"})
    assert answer.headers["X-Request-Id"] == "mine-7"
    assert len(httpx.get(f"{served.address}/health").headers["X-Request-Id"]) == 32


def test_text_becomes_tokens_and_text_again(served):
    found = httpx.post(f"{served.address}/tokenize", json={"prompt": PROMPT}).json()
    assert found["count"] == 11
    back = httpx.post(f"{served.address}/detokenize", json={"tokens": found["tokens"]}).json()
    assert back == {"prompt": PROMPT}


def metric(served: Server, name: str) -> float:
    lines = httpx.get(f"{served.address}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(name)]
    return float(line.rsplit(" ", 1)[1])


def test_who_leaves_frees_the_slot(served, client):
    before = metric(served, "wingspan:generation_tokens_total")
    stream = complete(client, max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).completions.create(
            model="tiny", prompt=PROMPT, max_tokens=2000, extra_body={"ignore_eos": True}
        )
    deadline = time.monotonic() + 10
    while metric(served, "wingspan:num_requests_running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert metric(served, "wingspan:generation_tokens_total") - before < 1000


def test_who_leaves_a_stream_before_its_first_byte_frees_the_slot(served):
    """The call is sent, and its connection closed; a few steps of a token each may pass until both are noticed."""
    before = metric(served, "wingspan:generation_tokens_total")
    call = {"prompt": PROMPT, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    body = json.dumps(call).encode()
    host, port = served.address.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    for _ in range(4):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    deadline = time.monotonic() + 10
    time.sleep(0.2)
    while metric(served, "wingspan:num_requests_running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert metric(served, "wingspan:generation_tokens_total") - before < 40


def test_a_full_queue_says_when_to_come_again(served, client):
    full = 4 * 16 + 64
    with ThreadPoolExecutor() as pool:
        long = [
            pool.submit(complete, client, n=full // 2, max_tokens=60, extra_body={"ignore_eos": True})
            for _ in range(2)
        ]
        time.sleep(0.3)
        answer = httpx.post(f"{served.address}/v1/completions", json={"prompt": "x", "n": full})
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert all(len(one.result().choices) == full // 2 for one in long)


def test_many_streams_at_once_are_each_what_they_are_alone(client, plain):
    prompts = [f"def f{n}(x" + "," * (n % 7) for n in range(32)]
    lengths = [4 + 5 * n % 23 for n in range(32)]
    expected = [plain(prompt, length) for prompt, length in zip(prompts, lengths, strict=True)]

    def text(n: int) -> str:
        time.sleep(0.05 * (n % 5))
        stream = complete(
            client, prompts[n], max_tokens=lengths[n], stream=True, extra_body={"ignore_eos": True}
        )
        return "".join(chunk.choices[0].text for chunk in stream)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(text, range(32))) == expected


def test_a_key_is_needed_where_there_is_one():
    with server(
        "--ranks", "1", "--experts-per-rank", "8", environment={"WINGSPAN_API_KEY": "secret"}
    ) as keyed:
        base = f"{keyed.address}/v1"
        status, _, message = refused(openai.OpenAI(base_url=base, api_key="wrong").models.list)
        assert (status, "key" in message) == (401, True)
        assert openai.OpenAI(base_url=base, api_key="secret").models.list().data
        assert httpx.get(f"{keyed.address}/metrics").status_code == 401
        assert httpx.get(f"{keyed.address}/health").status_code == 200
        big = httpx.post(
            f"{base}/completions", content=b"x" * 5_000_000, headers={"Authorization": "Bearer secret"}
        )
        assert big.status_code == 413
        _drain(keyed, base)


def _drain(keyed: Server, base: str) -> None:
    """A signal to end: what is under way is answered, nothing else."""
    client = openai.OpenAI(base_url=base, api_key="secret", max_retries=0)
    found: list[Any] = []
    calling = threading.Thread(
        target=lambda: found.append(complete(client, max_tokens=300, extra_body={"ignore_eos": True}))
    )
    calling.start()
    time.sleep(0.5)
    assert keyed.end() == 0
    calling.join(30)
    assert found[0].usage.completion_tokens == 300
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    assert "every call that was under way has been answered" in "".join(keyed.said)
