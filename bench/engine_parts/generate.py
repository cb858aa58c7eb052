"""transformers' generate in a separate process, which answers commands on its standard input.

    python -m bench.engine_parts.generate MODEL [ADAPTER]

A line {"rows": 8, "tokens": 128, "adapter": true} is answered by {"seconds": …, "tokens": …}: a
static batch from questions to text ids, padded on the left, greedy, without early end.
"""

import json
import sys
import time
import warnings
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.engine_parts.client import question
from trainer.precision import automatic_precision


def main() -> None:
    warnings.simplefilter("ignore")
    path, *adapter = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    dtype = automatic_precision(torch.device("cpu")).dtype
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter[0]).to(dtype).eval()
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if adapter and not wanted["adapter"]:
            with model.disable_adapter():
                answer = timed(model, tokenizer, wanted)
        else:
            answer = timed(model, tokenizer, wanted)
        print(json.dumps(answer), flush=True)


@torch.inference_mode()
def timed(model: Any, tokenizer: Any, wanted: dict[str, Any]) -> dict[str, float]:
    """Generate one batch and time it."""
    began = time.perf_counter()
    texts = [
        tokenizer.apply_chat_template(question(number), tokenize=False, add_generation_prompt=True)
        for number in range(wanted["rows"])
    ]
    given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    said = model.generate(
        **given,
        do_sample=False,
        min_new_tokens=wanted["tokens"],
        max_new_tokens=wanted["tokens"],
        pad_token_id=tokenizer.pad_token_id,
    )
    new = said.shape[1] - given["input_ids"].shape[1]
    return {"seconds": time.perf_counter() - began, "tokens": new * wanted["rows"]}


if __name__ == "__main__":
    main()
