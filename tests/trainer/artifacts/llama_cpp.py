"""Answer prompts with llama.cpp, greedily, in a process of its own: a crash of it ends no test.

Reads {"model", "adapter" or null, "prompts", "max_tokens"} from standard input; prints for each
prompt its token ids and those of the answer, as JSON.
"""

import json
import sys
import urllib.request
from typing import Any

import xllamacpp


def main() -> None:
    asked = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = asked["model"]
    params.n_ctx, params.n_parallel = 512, 1
    params.cpuparams.n_threads = 1
    params.verbosity = -1
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.warmup = False
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # as here: by default it keeps keys and values in half precision, and attention rounds to it
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if asked["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(asked["adapter"], 1.0)]
    server = xllamacpp.Server(params)

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310
            f"{server.listening_address}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return json.load(answer)

    found = []
    for prompt in asked["prompts"]:
        ids = post("/tokenize", {"content": prompt, "parse_special": True})["tokens"]
        how = {"temperature": 0, "n_predict": asked["max_tokens"], "return_tokens": True}
        answer = post("/completion", {"prompt": ids, "cache_prompt": False, **how})
        found.append({"prompt": ids, "answer": answer["tokens"]})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
