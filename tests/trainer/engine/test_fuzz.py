"""Whatever is sent to the engine, it answers with a status of its protocol and goes on."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer.engine.conftest import NAME
from trainer.engine.http.protocol import ChatRequest

pytestmark = pytest.mark.slow

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -1, 1e308, "", "user", NAME])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "x"]), "content": JSON}
    ),
    max_size=3,
)
PATHS = st.sampled_from(
    ["/v1/chat/completions", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    path=PATHS,
    changes=st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "lora_name", "x"]), JSON),
    messages=MESSAGES,
    raw=st.none() | st.binary(max_size=40),
)
@pytest.mark.long
def test_any_request_gets_an_answer_of_the_protocol(
    client: httpx.Client, path: str, changes: dict[str, Any], messages: Any, raw: bytes | None
) -> None:
    body = {"model": NAME, "messages": messages, "temperature": 0, **changes, "max_tokens": 2}
    text = raw if raw is not None else json.dumps(body).encode()
    answer = client.post(path, content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 404, 413, 422}, answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
    assert client.get("/health").status_code == 200
