"""One question to a running server: times, counts, keys and failures."""

from __future__ import annotations

import pytest

from infermix.errors import InputError
from infermix.serve.endpoint import ask, open_endpoint, served_models
from infermix.serve.prompts import prompt_of
from infermix.serve.stream import understood
from tests.serve.fake_server import Behaviour, serving

KEY = "sk-not-to-be-seen"


def test_a_question_is_stamped_and_counted() -> None:
    with serving(Behaviour()) as url:
        endpoint = open_endpoint(url, environment={})
        assert served_models(endpoint) == ["fake"]
        answer = ask(endpoint, "fake", prompt_of(40, 1), 5, force=True)
    assert (answer.failure, answer.input_tokens, answer.output_tokens, answer.chunks) == ("", 40, 5, 5)
    assert answer.first_s - answer.sent_s >= 0.030
    assert answer.last_s - answer.sent_s >= 0.030 + 4 * 0.0105 - 0.005


def test_a_key_goes_into_the_header_and_nowhere_else() -> None:
    with serving(Behaviour(key=KEY)) as url:
        endpoint = open_endpoint(url, environment={"OPENAI_API_KEY": KEY})
        assert served_models(endpoint) == ["fake"]
        assert ask(endpoint, "fake", "one two", 2, force=True).failure == ""
        assert KEY not in repr(endpoint) and KEY not in endpoint.name
        keyless = open_endpoint(url, environment={})
        with pytest.raises(InputError, match=r"HTTP 401.*OPENAI_API_KEY"):
            served_models(keyless)
        assert ask(keyless, "fake", "one two", 2, force=True).failure == "HTTP 401: who are you"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:8000", "not the URL of a server"),
        ("ftp://host/v1", "not the URL of a server"),
        ("http://me:secret@host/v1", "no credentials in the URL"),
        ("http://host:99999/v1", "not a port"),
        ("http://host/v1?key=secret", "the URL has a query"),
    ],
)
def test_urls_that_cannot_be_are_refused_without_their_secrets(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as fault:
        open_endpoint(url, environment={})
    assert "secret" not in str(fault.value)


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(InputError, match="the server does not answer"):
        served_models(open_endpoint("http://127.0.0.1:9", environment={}))


def test_answers_without_counts_of_tokens_are_failures() -> None:
    with serving(Behaviour(counts_tokens=False)) as url:
        answer = ask(open_endpoint(url, environment={}), "fake", "one two", 2, force=True)
    assert "include_usage" in answer.failure


@pytest.mark.parametrize(
    ("events", "failure"),
    [
        ([b"{"], "an event that is not JSON"),
        ([b'{"error": {"message": "gone"}}'], "an error in the stream"),
        ([b'{"choices": [{"delta": {"role": "assistant"}}]}'], "no text came"),
        ([], "no text came"),
    ],
)
def test_broken_streams_are_failures(events: list[bytes], failure: str) -> None:
    assert understood([(1.0, event) for event in events], 0.0).failure == failure
