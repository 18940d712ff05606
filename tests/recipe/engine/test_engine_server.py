# SPDX-License-Identifier: Apache-2.0
"""``vllm serve`` of the CPU packages, asked over HTTP.

The server runs outside of the tree with a handful of variables. Its search path has only the
environment, so it finds neither a compiler nor ``lscpu``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from engine_server import Answer, Server

pytestmark = pytest.mark.slow

PROMPT = "The packages are built from one source tree with"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Which tree?"},
]
#: Greedy, and of a fixed length.
GREEDY = {"temperature": 0, "max_tokens": 24, "ignore_eos": True}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "state": {"enum": ["built", "tested"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2},
        "done": {"type": "boolean"},
    },
    "required": ["state", "count", "tags", "done"],
    "additionalProperties": False,
}


def complete(server: Server, **body: Any) -> Any:
    answer = server.post(COMPLETIONS, {"prompt": PROMPT, **GREEDY, **body})
    assert answer.status == 200, answer.body
    return answer.body


def text(server: Server, **body: Any) -> str:
    return str(complete(server, **body)["choices"][0]["text"])


def chat(server: Server, **body: Any) -> Answer:
    return server.post(CHAT, {"messages": MESSAGES, **GREEDY, **body})


def test_the_log_says_once_that_there_is_no_compiler(server: Server) -> None:
    started = server.log.partition("Application startup complete")[0]
    assert started.count("No C++ compiler: the model runs without torch.compile") == 1
    assert "lscpu" not in started
    assert "Traceback" not in started


def test_models_metrics_and_health(server: Server) -> None:
    assert [entry["id"] for entry in server.get("/v1/models").body["data"]] == ["small"]
    assert server.get("/health").status == 200
    text(server)
    metrics = server.get("/metrics").body
    assert re.search(r"^vllm:generation_tokens_total\{.*\} [1-9]", metrics, re.MULTILINE)


def test_a_completion_is_the_same_each_time_and_counts_its_tokens(server: Server) -> None:
    first, second = complete(server), complete(server)
    assert first["choices"][0]["text"] == second["choices"][0]["text"] != ""
    assert first["usage"]["completion_tokens"] == GREEDY["max_tokens"]
    tokens = server.post("/tokenize", {"prompt": PROMPT}).body["tokens"]
    assert first["usage"]["prompt_tokens"] == len(tokens) > 1


def test_a_chat_is_the_completion_of_the_template(server: Server) -> None:
    answer = chat(server)
    assert answer.status == 200, answer.body
    rendered = "<s>" + "".join(f"<|{m['role']}|>\n{m['content']}</s>\n" for m in MESSAGES)
    prompt = f"{rendered}<|assistant|>\n"
    assert answer.text == text(server, prompt=prompt, add_special_tokens=False)
    assert answer.text != text(server)


def test_streams_have_the_text_of_the_answer(server: Server) -> None:
    body = {"prompt": PROMPT, **GREEDY}
    pieces = [event["choices"][0]["text"] for event in server.stream(COMPLETIONS, body)]
    assert len(pieces) > 5
    assert "".join(pieces) == text(server)
    events = [*server.stream(CHAT, {"messages": MESSAGES, **GREEDY})]
    deltas = [choice["delta"].get("content") or "" for e in events for choice in e["choices"]]
    assert "".join(deltas) == chat(server).text
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_structured_output_follows_a_json_schema(server: Server) -> None:
    """Sampled, because spaces may repeat without end in greedy text of random weights."""
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    answer = chat(
        server,
        response_format=wanted,
        temperature=1,
        seed=7,
        max_tokens=300,
        ignore_eos=False,
    )
    assert answer.status == 200, answer.body
    assert answer.body["choices"][0]["finish_reason"] == "stop"
    found = json.loads(answer.text)
    assert set(found) == set(SCHEMA["required"])
    assert found["state"] in {"built", "tested"}
    assert found["count"] in range(100)
    assert {*found["tags"]} <= {"a", "b"}
    assert len(found["tags"]) in {1, 2}
    assert isinstance(found["done"], bool)


def test_structured_output_follows_choices_expressions_and_grammars(server: Server) -> None:
    options = {"temperature": 1, "seed": 3, "ignore_eos": False, "max_tokens": 64}
    choice = {"choice": ["conda", "wheel"]}
    assert text(server, structured_outputs=choice, **options) in {"conda", "wheel"}
    regex = {"regex": r"v[0-9]{1,2}\.[0-9]{1,2}"}
    assert re.fullmatch(regex["regex"], text(server, structured_outputs=regex, **options))
    grammar = {"grammar": 'root ::= "(" ("x" | "y") ")"'}
    assert text(server, structured_outputs=grammar, **options) in {"(x)", "(y)"}


def test_a_backend_that_is_not_installed_is_no_error_of_the_server(server: Server) -> None:
    """The engine imports a module of lm-format-enforcer for every backend."""
    assert "lmformatenforcer" not in server.log
    assert text(server, structured_outputs={"choice": ["a"]}, ignore_eos=False) == "a"


def test_what_xgrammar_lacks_needs_the_other_backend(server: Server) -> None:
    """A server has one backend, which its first request chooses."""
    assert text(server, structured_outputs={"choice": ["a"]}, ignore_eos=False) == "a"
    schema = {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70}
    answer = server.post(
        COMPLETIONS, {"prompt": PROMPT, **GREEDY, "structured_outputs": {"json": schema}}
    )
    assert answer.status == 400, answer.body
    assert "structured_outputs_config.backend" in answer.body["error"]["message"]


@pytest.mark.parametrize(
    "structured",
    [
        {"json": {"type": "no such type"}},
        {"regex": "("},
        {"grammar": "root ::= other"},
        {"choice": []},
        {"json": {"type": "string", "pattern": "("}},
        # Neither xgrammar nor llguidance has it, and no other backend is installed.
        {"json": {"type": "object", "patternProperties": {"^a": {"type": "no such type"}}}},
    ],
)
def test_malformed_constraints_are_refused(server: Server, structured: Any) -> None:
    answer = server.post(
        COMPLETIONS, {"prompt": PROMPT, **GREEDY, "structured_outputs": structured}
    )
    assert answer.status == 400, answer.body
    assert answer.body["error"]["message"]
    assert text(server), "the server still answers"


def test_penalties_change_the_tokens(server: Server) -> None:
    """The logits of random weights differ by less than the penalties, so no token repeats."""

    def tokens(**body: Any) -> list[int]:
        made = complete(server, return_token_ids=True, max_tokens=48, **body)
        return [int(token) for token in made["choices"][0]["token_ids"]]

    usual = tokens()
    assert len(set(usual)) < len(usual), "the model repeats itself without penalties"
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        punished = tokens(**penalty)
        assert len(set(punished)) == len(punished) == 48
    repeated = tokens(repetition_penalty=1.5)
    assert len(set(repeated)) > len(set(usual))


def test_samples_depend_on_the_seed(server: Server) -> None:
    sampled = {"temperature": 1.0, "top_p": 0.95, "top_k": 50, "min_p": 0.01}
    first = text(server, **sampled, seed=1)
    assert first == text(server, **sampled, seed=1)
    assert first != text(server, **sampled, seed=2)
    assert text(server, temperature=1.0, top_k=1) == text(server)


def test_several_answers_and_stops(server: Server) -> None:
    choices = complete(server, n=3, temperature=1.0, seed=5)["choices"]
    assert len({choice["text"] for choice in choices}) == 3
    whole = text(server)
    # The text is random, and made of parts of words from this tree's pages.
    word = max(re.findall(r"[A-Za-z]+", whole), key=len)
    part = word[len(word) // 2 :][:3]
    cut = complete(server, stop=[part])["choices"][0]
    assert cut["text"] == whole[: whole.index(part)]
    assert cut["finish_reason"] == "stop"


def test_log_probabilities(server: Server) -> None:
    """They are sorted, and those of greedy tokens are the first."""
    made = complete(server, logprobs=3, max_tokens=4)["choices"][0]["logprobs"]
    assert len(made["tokens"]) == 4
    for chosen, top in zip(made["token_logprobs"], made["top_logprobs"], strict=True):
        assert len(top) == 3
        assert chosen == max(top.values()) < 0
    prompt = complete(server, prompt_logprobs=2, max_tokens=1)["choices"][0]["prompt_logprobs"]
    assert prompt[0] is None
    assert all(2 <= len(place) <= 3 for place in prompt[1:])
    talk = chat(server, logprobs=True, top_logprobs=2, max_tokens=3)
    assert talk.status == 200, talk.body
    content = talk.body["choices"][0]["logprobs"]["content"]
    assert [len(place["top_logprobs"]) for place in content] == [2, 2, 2]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (COMPLETIONS, b"{", 400),
        (COMPLETIONS, {"prompt": PROMPT, "max_tokens": -1}, 400),
        (COMPLETIONS, {"prompt": "word " * 2000}, 400),
        (COMPLETIONS, {"prompt": PROMPT, "temperature": "warm"}, 400),
        (COMPLETIONS, {"prompt": PROMPT, "model": "another"}, 404),
        (CHAT, {"messages": "hello"}, 400),
        ("/v1/no/such/path", {}, 404),
    ],
)
def test_requests_that_cannot_be_answered(
    server: Server, path: str, body: Any, status: int
) -> None:
    answer = server.post(path, body)
    assert answer.status == status, answer.body
    assert text(server), "the server still answers"
