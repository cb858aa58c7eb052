"""Measure how the precision of the engine changes what a trained adapter answers.

    python -m bench.precision --adapter DIR [--model DIR] [--prompts 20] [--json FILE]

The exact reference is base and adapter in float32, as transformers computes them. It answers
prompts that no run has used; then each way of serving scores the same answers token by token.
Printed per token: the KL divergence of the exact distribution from the served one, in nats, the
mean absolute difference of the answer's log-probabilities, and the share of tokens with the same
argmax.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.backends import serving_decoder
from trainer.data.chat import prompt_ids
from trainer.engine.adapters import read_adapter
from trainer.evaluation.generate import Sampling, generate
from trainer.models.loading import load_base, prepare

ROOT = Path(__file__).resolve().parent.parent
UNSEEN = ROOT / "feedback_app" / "feedback" / "projects" / "starter_data" / "unseen.jsonl"
TOKENS = 48


@dataclass(frozen=True)
class Distance:
    """Means over all answer tokens; `kl` and `difference` in nats."""

    served: str
    kl: float
    difference: float
    same_first: float
    tokens: int


def exact_answers(
    model: str, adapter: Path, count: int
) -> tuple[list[list[int]], list[tuple[int, ...]], list[Tensor]]:
    """Return prompts, answers, and log-probabilities (tokens, V) of each answer's positions."""
    base = load_base(model, dtype="float32", device="cpu")
    lines = UNSEEN.read_text(encoding="utf-8").splitlines()[:count]
    prompts = [prompt_ids(base.tokenizer, messages_of(json.loads(line))) for line in lines]
    with adapted(base, adapter), torch.no_grad():
        sampling = Sampling(TOKENS, 0.7, 0.95, seed=1)
        answers = [
            found.token_ids for found in generate(base.model, base.tokenizer, prompts, sampling)
        ]
        scores = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([[*prompt, *answer]])
            logits = base.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            scores.append(logits.float().log_softmax(-1))
    return prompts, answers, scores


def messages_of(line: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" in line:
        return list(line["messages"])
    return [{"role": "user", "content": str(line["prompt"])}]


def served_scores(
    model: str,
    adapter: Path,
    dtype: str,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> list[Tensor]:
    """Return the same log-probabilities from the compiled decoder with weights of `dtype`."""
    base = load_base(model, dtype=dtype, device="cpu")
    decoder = serving_decoder(base.model)
    assert decoder.batch_invariant, "this measures the compiled decoder"
    _, weights = read_adapter(adapter, base, decoder.shapes, name=adapter.resolve().name)
    slot = decoder.attach(weights)
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        cache = decoder.cache(1, len(prompt) + len(answer))
        rows = [decoder.read([list(prompt)], 0, [slot], cache)[0]]
        for number, token in enumerate(answer[:-1]):
            rows.append(decoder.read([[token]], len(prompt) + number, [slot], cache)[0])
        found.append(torch.stack(rows).float().log_softmax(-1))
    return found


def distance(
    served: str, exact: Sequence[Tensor], found: Sequence[Tensor], answers: Sequence[Sequence[int]]
) -> Distance:
    kl, difference, same = [], [], []
    for true, other, answer in zip(exact, found, answers, strict=True):
        kl.append((true.exp() * (true - other)).sum(-1))
        picked = torch.tensor(list(answer))[:, None]
        difference.append((true.gather(1, picked) - other.gather(1, picked)).abs()[:, 0])
        same.append((true.argmax(-1) == other.argmax(-1)).float())
    whole = torch.cat(kl)
    return Distance(
        served,
        whole.mean().item(),
        torch.cat(difference).mean().item(),
        torch.cat(same).mean().item(),
        len(whole),
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--adapter", type=Path, required=True, help="directory of the adapter")
    parser.add_argument("--model", help="directory of the base model; default: SmolLM2")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args(argv)
    model = arguments.model or str(prepare(ROOT / "var" / "models"))
    stored = next(iter(load_file(arguments.adapter / WEIGHTS).values())).dtype
    print(f"adapter stored in {str(stored).removeprefix('torch.')}")
    prompts, answers, exact = exact_answers(model, arguments.adapter, arguments.prompts)
    rows = [
        distance(
            f"engine, weights in {dtype}",
            exact,
            served_scores(model, arguments.adapter, dtype, prompts, answers),
            answers,
        )
        for dtype in ("float32", "bfloat16")
    ]
    print("| served | KL, nats per token | log-probability, nats | same likeliest | tokens |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.served} | {row.kl:.6f} | {row.difference:.4f} | {row.same_first:.1%} "
            f"| {row.tokens} |"
        )
    if arguments.json:
        found = json.dumps([asdict(row) for row in rows], indent=2)
        arguments.json.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
