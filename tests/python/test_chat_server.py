"""The test server speaks the real protocol: OpenAI's own client understands it, its errors included."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

openai = pytest.importorskip("openai", reason="the Python package openai is not installed")

from chat_server import FAULTS, INJECTED, MODEL, ChatServer  # noqa: E402

KEY = "sk-test-0123456789"
SCHEMA = {
    "type": "object",
    "properties": {"labels": {"type": "array", "items": {"type": "string"}}},
    "required": ["labels"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "labels", "strict": True, "schema": SCHEMA}}


@pytest.fixture
def server():
    with ChatServer(answer=lambda request: json.dumps({"labels": [request["messages"][-1]["role"]]})) as server:
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0, timeout=2.0) as client:
        yield client


def ask(client, **more) -> str:
    messages = [{"role": "system", "content": "Name things."}, {"role": "user", "content": "Which?"}]
    reply = client.chat.completions.create(model=MODEL, messages=messages, **more)
    assert reply.object == "chat.completion" and reply.usage.total_tokens > 0
    return reply.choices[0].message.content


def test_good_replies(server, client):
    assert json.loads(ask(client, response_format=FORM)) == {"labels": ["user"]}
    (received,) = server.requests
    assert received.header("authorization") == f"Bearer {KEY}"
    assert received.body["response_format"] == FORM
    assert [model.id for model in client.models.list()] == [MODEL]


def test_pictures(server, client):
    url = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff\xd9").decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert server.requests[0].body["messages"][0]["content"][1]["image_url"]["url"] == url


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("unauthorised", "AuthenticationError", "invalid_api_key"),
        ("rate_limit", "RateLimitError", "rate_limit_exceeded"),
        ("server_error", "InternalServerError", None),
        ("rejects_format", "BadRequestError", "unknown_parameter"),
    ],
)
def test_errors(server, client, fault, kind, code):
    server.set_fault(fault)
    with pytest.raises(getattr(openai, kind)) as caught:
        ask(client, response_format=FORM)
    assert caught.value.code == code
    server.set_fault("none")
    assert ask(client)


def test_the_key_is_repeated_and_retry_after_is_sent(server, client):
    server.set_fault("unauthorised")
    with pytest.raises(openai.AuthenticationError, match=KEY):
        ask(client)
    server.set_fault("rate_limit", retry_after=7)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.response.headers["retry-after"] == "7"


def test_the_official_client_recovers_from_a_rate_limit(server, client):
    server.set_fault("rate_limit", times=1, retry_after=1)
    start = time.monotonic()
    assert ask(client.with_options(max_retries=2))
    assert len(server.requests) == 2 and time.monotonic() - start > 0.9


@pytest.mark.parametrize("fault", ["refuse", "reset", "cut_off"])
def test_broken_connections(server, client, fault):
    server.set_fault(fault)
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    server.set_fault("none")
    assert ask(client)


def test_a_hanging_reply_times_out_and_ends_with_its_fault(server, client):
    server.set_fault("hang")
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.3))
    server.set_fault("none")
    assert ask(client)


@pytest.mark.parametrize("fault", ["wrong_schema", "injected", "long_labels", "duplicate_keys"])
def test_odd_contents_come_in_good_envelopes(server, client, fault):
    server.set_fault(fault)
    content = ask(client, response_format=FORM)
    if fault == "injected":
        assert INJECTED in content
    elif fault == "long_labels":
        assert all(len(label) >= 1000 for label in json.loads(content)["labels"])
    elif fault == "duplicate_keys":
        assert content.count('"labels"') == 3


def test_refusal_and_length(server, client):
    server.set_fault("refusal")
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "?"}])
    assert reply.choices[0].message.refusal
    server.set_fault("length")
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "?"}])
    assert reply.choices[0].finish_reason == "length"


def test_bad_requests_are_refused(server, client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "wizard", "content": "?"}])
    assert caught.value.param == "messages.[0].role"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=MODEL, input="x")


def test_only_the_right_key_is_let_in():
    with ChatServer(key=KEY) as server:
        with openai.OpenAI(base_url=server.base_url, api_key="sk-wrong", max_retries=0) as wrong, pytest.raises(openai.AuthenticationError):
            ask(wrong)
        with openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as right:
            assert ask(right)


def test_unknown_faults_are_named(server):
    with pytest.raises(ValueError, match="known: none"):
        server.set_fault("gremlins")
    assert "drip" in FAULTS


def test_as_a_program():
    script = Path(__file__).with_name("chat_server.py")
    process = subprocess.Popen([sys.executable, script, "--fault", "server_error", "--content", "hello"], stdout=subprocess.PIPE, text=True)
    try:
        root = f"http://127.0.0.1:{int(process.stdout.readline())}"
        with openai.OpenAI(base_url=f"{root}/v1", api_key=KEY, max_retries=0) as client:
            with pytest.raises(openai.InternalServerError):
                ask(client)
            urllib.request.urlopen(f"{root}/fault", data=b'{"fault": "none"}', timeout=5).close()
            assert ask(client) == "hello"
        with urllib.request.urlopen(f"{root}/requests", timeout=5) as received:
            assert len(json.load(received)) == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
