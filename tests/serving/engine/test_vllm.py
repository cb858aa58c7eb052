"""vLLM's error messages where they differ from the embedded engine's; taken from vLLM 0.32.0."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.serving.engine.client import AdapterBroken, Engine, EngineError, Sampling
from feedback_app.serving.models import Release
from feedback_app.serving.releases.services import release_promote
from feedback_app.web.errors import UserError
from tests.engines import free_port
from tests.served import MODEL, MakeAdapter

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
GREEDY = Sampling(max_tokens=4, temperature=0.0, top_p=1.0)
JSON = "application/json"
CHAT, LOAD = "/v1/chat/completions", "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
LOADED = "The lora adapter 'bot@1' has already been loaded. If you want to load the adapter in …"
RESOLVED = "LoRA adapter 'bot@1' was found but could not be loaded."
UNKNOWN = "The model `bot@1` does not exist. Valid aliases: tiny."
WORKER = "Call to add_lora method failed: Worker failed with error 'invalid header length', …"
#: The output of weights that are not finite: the first token of the vocabulary, without text.
NOTHING = 'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n' * 3

#: (status, message) of each path; a message with 200 is a stream.
Says = dict[str, tuple[int, str]]
Vllm = Callable[[Says], list[str]]


@pytest.fixture
def vllm(settings: Settings) -> Iterator[Vllm]:
    """`vllm(says)`: make the engine return these errors; return the list of requested paths."""
    says: Says = {}
    asked: list[str] = []

    class Words(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            asked.append(self.path)
            status, message = says[self.path]
            error = json.dumps({"error": {"message": message, "code": status}})
            kind, data = ("text/event-stream", message) if status == 200 else (JSON, error)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data.encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Words) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        settings.ENGINES = {MODEL: f"http://127.0.0.1:{server.server_port}"}

        def speaks(words: Says) -> list[str]:
            says.update(words)
            return asked

        yield speaks
        server.shutdown()


def test_already_loaded_adapter_counts_as_loaded(
    served: Project, make_adapter: MakeAdapter, vllm: Vllm
) -> None:
    vllm({LOAD: (400, LOADED), CHAT: (400, LOADED)})
    Engine(served).load(make_adapter(1))
    with pytest.raises(EngineError, match="already"):  # for any other request it is an error
        Engine(served).answer([], version="base", sampling=GREEDY)


@pytest.mark.parametrize(
    "words",
    [{CHAT: (400, RESOLVED)}, {CHAT: (404, UNKNOWN), LOAD: (500, WORKER)}],
    ids=["resolver", "loaded on request"],
)
def test_adapter_that_vllm_cannot_load_is_reported_as_broken(
    words: Says, served: Project, make_adapter: MakeAdapter, vllm: Vllm
) -> None:
    adapter = make_adapter(1)
    vllm(words)
    with pytest.raises(AdapterBroken):
        Engine(served).answer([], version=adapter.name, sampling=GREEDY)


def test_version_that_vllm_cannot_load_does_not_block_others(
    served: Project, make_adapter: MakeAdapter, vllm: Vllm, settings: Settings
) -> None:
    Release.objects.create(project=served, adapter=make_adapter(1))
    asked = vllm({LOAD: (500, WORKER), CHAT: (400, "I was asked.")})
    # with a second engine that is down: a single engine is always tried
    settings.ENGINES[MODEL] = [settings.ENGINES[MODEL], f"http://127.0.0.1:{free_port()}"]
    with pytest.raises(EngineError, match="I was asked"):
        Engine(served).answer([], version="base", sampling=GREEDY)
    assert asked == [LOAD, CHAT]


def test_damaged_files_are_not_loaded(
    served: Project, make_adapter: MakeAdapter, vllm: Vllm, admin: User, settings: Settings
) -> None:
    adapter = make_adapter(1)
    asked = vllm({CHAT: (404, UNKNOWN)})
    settings.ARTIFACT_ROOT = settings.ARTIFACT_ROOT / "elsewhere"
    shutil.copytree(settings.ARTIFACT_ROOT.parent / adapter.path, adapter.directory)
    (adapter.directory / "adapter_model.safetensors").write_bytes(b"not what was trained")
    with pytest.raises(AdapterBroken, match="differs from its hash"):
        Engine(served).answer([], version=adapter.name, sampling=GREEDY)
    with pytest.raises(EngineError, match="differs from its hash"):
        release_promote(project=served, adapter=adapter, by=admin)
    assert asked == [CHAT]


def test_version_with_empty_answers_is_not_released(
    served: Project, make_adapter: MakeAdapter, vllm: Vllm, admin: User
) -> None:
    words = NOTHING + 'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    vllm({LOAD: (400, LOADED), CHAT: (200, NOTHING + "data: [DONE]\n\n")})
    with pytest.raises(UserError, match="canary"):
        release_promote(project=served, adapter=make_adapter(1), by=admin)
    assert not Release.objects.exists()
    vllm({CHAT: (200, words), UNLOAD: (404, UNKNOWN)})
    release_promote(project=served, adapter=make_adapter(2), by=admin)
    assert served.live_version == served.adapter_name(2)
