"""Speed of the engine compared with transformers, during a release, and through the web app.

    make bench-engine [ARGS='--only ttft --repeats 3 --json FILE']

On SmolLM2-135M; transformers runs it in bfloat16, or in float32 where this CPU emulates bfloat16.
Eight streams start a tenth of a second apart, over the base and two adapters (rank 16 on all linear
layers), 128 tokens each, greedy. The compared sides run in turns within a minute; the ratio is the
median of the pairs.

    static     tokens/s compared with a static batch of eight through `generate` with one PEFT
               adapter
    serve      tokens/s compared with `transformers serve --continuous-batching` (base only: it
               has no adapters), from the same client; both have answered the same load once before
    ttft       time to the first token while seven others generate, compared with a single request
    one        one stream of the base compared with `generate`
    promotion  50 open streams while a third adapter is loaded, asked, and the first is unloaded
    release    the same by an admin with the page's button, with 50 streams through the gateway
    web        the same load through the gateway instead of directly to the engine; and eight people
               in the demo, compared with the same sampling directly from the engine
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.engine_parts import processes
from bench.engine_parts.client import (
    Stream,
    ask,
    chat,
    first_token,
    percentile,
    question,
    run,
    tokens_per_second,
)
from bench.engine_parts.processes import ADAPTERS, ROOT, WORK
from bench.engine_parts.releasing import gauge, release
from bench.engine_parts.web import Web, web
from trainer.models.loading import prepare

STREAMS, TOKENS, STAGGER = 8, 128, 0.1
#: Spacing so that a request arrives while the seven others decode, not during their prefill.
SPREAD = 0.6
OPEN_STREAMS = 50


@dataclass(frozen=True)
class Figure:
    """One comparison: `value` in `unit` against `other`, their ratio, and the required ratio."""

    part: str
    what: str
    value: float
    other: float
    unit: str
    ratio: float
    bar: str

    @property
    def holds(self) -> bool:
        sign, limit = self.bar.split()
        return self.ratio >= float(limit) if sign == "≥" else self.ratio <= float(limit)


def paired(
    part: str, what: str, unit: str, bar: str, pairs: Sequence[tuple[float, float]]
) -> Figure:
    """Return the figure of several (value, other): the medians, and the median of the ratios."""
    return Figure(
        part,
        what,
        median(value for value, _ in pairs),
        median(other for _, other in pairs),
        unit,
        median(value / other for value, other in pairs),
        bar,
    )


class Bench:
    def __init__(self, model: str, repeats: int) -> None:
        self.model = model
        self.repeats = repeats
        self.artifacts = processes.make_adapters(model)
        self._numbers = 0

    def body(self, model: str, tokens: int = TOKENS, **fields: Any) -> dict[str, Any]:
        """Return a request with a unique prefix, so that no cache can be reused."""
        self._numbers += 1
        asked = {"model": model, "messages": question(self._numbers), "max_tokens": tokens}
        return {**asked, "temperature": 0, **fields}

    def ours(
        self, url: str, models: Sequence[str], rounds: int = 1, stagger: float = STAGGER
    ) -> list[Stream]:
        """Run eight streams, `rounds` answers each, over these models in turn."""
        extra = {"ignore_eos": True, "return_token_ids": True}
        bodies = [
            [self.body(models[number % len(models)], **extra) for _ in range(rounds)]
            for number in range(STREAMS)
        ]
        return run(url, bodies, stagger=stagger)

    # -- parts

    def static(self) -> list[Figure]:
        adapter = self.artifacts / "adapters" / ADAPTERS[0]
        mixture = ("base", *ADAPTERS[:2])
        pairs = []
        with (
            processes.engine(self.model, self.artifacts) as url,
            processes.generate(self.model, adapter) as peer,
        ):
            self.ours(url, mixture)
            peer.batch(rows=STREAMS, tokens=16, adapter=True)
            for _ in range(self.repeats):
                mine = tokens_per_second(self.ours(url, mixture))
                pairs.append((mine, peer.batch(rows=STREAMS, tokens=TOKENS, adapter=True)))
        what = "8 mixed streams : static PEFT batch of 8"
        return [paired("static", what, "tokens/s", "≥ 1.0", pairs)]

    def serve(self) -> list[Figure]:
        pairs = []
        with (
            processes.engine(self.model, self.artifacts) as url,
            processes.transformers_serve(self.model) as peer,
        ):

            def theirs(tokens: int) -> float:
                bodies = [[self.body(self.model, tokens)] for _ in range(STREAMS)]
                return tokens_per_second(run(peer, bodies, stagger=STAGGER))

            self.ours(url, ("base",))
            theirs(16)
            for _ in range(self.repeats):
                pairs.append((tokens_per_second(self.ours(url, ("base",))), theirs(TOKENS)))
        what = "8 streams : transformers serve, continuous batching"
        return [paired("serve", what, "tokens/s", "≥ 2.5", pairs)]

    def ttft(self) -> list[Figure]:
        mixture = ("base", *ADAPTERS[:2])
        pairs = []
        with processes.engine(self.model, self.artifacts) as url:
            self.ours(url, mixture)
            for _ in range(self.repeats):
                alone = [
                    run(url, [[self.body(mixture[number % 3], 4)]], stagger=0)[0]
                    for number in range(STREAMS)
                ]
                busy = self.ours(url, mixture, rounds=2, stagger=SPREAD)[1:]
                pairs.append((first_token(busy), first_token(alone)))
        what = "first token at 8 streams : of a lone request"
        return [paired("ttft", what, "s", "≤ 2.0", pairs)]

    def one(self) -> list[Figure]:
        pairs = []
        with (
            processes.engine(self.model, self.artifacts) as url,
            processes.generate(self.model) as peer,
        ):
            for number in range(self.repeats + 1):
                body = self.body("base", ignore_eos=True, return_token_ids=True)
                mine = tokens_per_second(run(url, [[body]], stagger=0))
                theirs = peer.batch(rows=1, tokens=TOKENS, adapter=False)
                if number:  # the first of each warms up
                    pairs.append((mine, theirs))
        return [paired("one", "one stream : generate", "tokens/s", "≥ 0.95", pairs)]

    def promotion(self) -> list[Figure]:
        gaps, answers, failures = [], [], 0
        for _ in range(self.repeats):
            with processes.engine(self.model, self.artifacts) as url:
                streams, pressed, answered = asyncio.run(self._promote(url))
            failures += sum(stream.error is not None for stream in streams)
            gaps.append(gaps_around(streams, pressed, pressed + 3 * answered))
            answers.append((answered, 1.0))
        return [
            Figure("promotion", "failed streams of 50", failures, 0, "", failures, "≤ 0"),
            paired("promotion", "longest gap : usual 99th percentile", "s", "≤ 2.0", gaps),
            paired("promotion", "press to the new version's answer", "s", "≤ 1.0", answers),
        ]

    async def _promote(self, url: str) -> tuple[list[Stream], float, float]:
        """Make release_promote's requests under 50 streams; return (streams, when, seconds)."""
        old, new = ADAPTERS[0], ADAPTERS[2]
        models = ("base", *ADAPTERS[:2])
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
            fields = {"ignore_eos": True, "return_token_ids": True}
            running = [
                asyncio.create_task(
                    ask(client, self.body(models[number % len(models)], 320, **fields))
                )
                for number in range(OPEN_STREAMS)
            ]
            while (await gauge(client, "running")) < OPEN_STREAMS:
                await asyncio.sleep(0.1)
            await asyncio.sleep(6)  # normal gaps, with all streams decoding
            pressed = time.perf_counter()
            load = {"lora_name": new, "lora_path": f"adapters/{new}"}
            (await client.post("/v1/load_lora_adapter", json=load)).raise_for_status()
            answer = await ask(client, self.body(new, 1))
            answered = answer.arrivals[0] - pressed
            unload = {"lora_name": old}
            (await client.post("/v1/unload_lora_adapter", json=unload)).raise_for_status()
            return list(await asyncio.gather(*running)), pressed, answered

    def release(self) -> list[Figure]:
        gaps, answers, failures = [], [], 0
        for _ in range(self.repeats):
            with web(self.model) as place:
                bodies = [self.body("live", 320) for _ in range(OPEN_STREAMS)]
                done = asyncio.run(release(place, bodies, usual=6))
            failures += sum(stream.error is not None for stream in done.streams)
            gaps.append(gaps_around(done.streams, done.pressed, done.answered + 1))
            answers.append((done.answered - done.pressed, 1.0))
            print(
                f"  the page answered after {done.page_answered - done.pressed:.2f} s", flush=True
            )
        what = "press to the new version's answer"
        return [
            Figure("release", "failed streams of 50", failures, 0, "", failures, "≤ 0"),
            paired("release", "longest gap : usual 99th percentile", "s", "≤ 2.0", gaps),
            paired("release", what, "s", "≤ 1.0", answers),
        ]

    def web(self) -> list[Figure]:
        speeds, firsts, demo_speeds, demo_firsts = [], [], [], []
        with web(self.model) as place:

            def load(url: str, model: str, headers: dict[str, str] | None) -> list[Stream]:
                bodies = [[self.body(model) for _ in range(2)] for _ in range(STREAMS)]
                return run(url, bodies, stagger=STAGGER, headers=headers)

            for number in range(self.repeats + 1):
                straight = load(place.engine_url, place.model, None)
                through = load(place.url, "base", place.headers)
                alone, seen = self._demo(place)
                if number:
                    speeds.append((tokens_per_second(through), tokens_per_second(straight)))
                    firsts.append((first_token(through), first_token(straight)))
                    demo_speeds.append((tokens_per_second(seen), tokens_per_second(alone)))
                    demo_firsts.append((first_token(seen), first_token(alone)))
        return [
            paired("web", "gateway : engine, 8 streams", "tokens/s", "≥ 0.85", speeds),
            paired("web", "first token, gateway : engine", "s", "≤ 1.25", firsts),
            paired("web", "demo : engine, 8 streams", "pieces/s", "≥ 0.85", demo_speeds),
            paired("web", "first token, demo : engine", "s", "≤ 1.25", demo_firsts),
        ]

    def _demo(self, place: Web) -> tuple[list[Stream], list[Stream]]:
        """Run the demo's sampling, directly from the engine and as eight people in the demo; pieces
        of text are counted on both sides, since the demo's readers receive no tokens."""
        path = f"/demo/{place.slug}/new/"
        sampling = {"temperature": 0.8, "top_p": 0.95}
        straight = [[self.body(place.model, 256, **sampling)] for _ in place.sessions]
        self._numbers += len(place.sessions)
        through = [
            [{"path": path, "session": session, "text": question(self._numbers - n)[0]["content"]}]
            for n, session in enumerate(place.sessions)
        ]
        alone = run(place.engine_url, straight, stagger=STAGGER)
        for stream in alone:
            stream.tokens = len(stream.arrivals)
        return alone, run(place.url, through, stagger=STAGGER, by=chat)


def gaps_around(streams: Sequence[Stream], began: float, ended: float) -> tuple[float, float]:
    """Return the longest gap that ended between two moments, and the 99th percentile before them,
    when all streams were decoding."""
    since = max(stream.arrivals[0] for stream in streams)
    seen = [gap for stream in streams for gap in stream.gaps if gap[0] > since]
    usual = [seconds for when, seconds in seen if when < began]
    around = [seconds for when, seconds in seen if began <= when < ended]
    return max(around), percentile(usual, 0.99)


def table(figures: Sequence[Figure]) -> str:
    lines = ["| part | what | value | other | ratio | bar | |", "|---|---|---|---|---|---|---|"]
    lines += [
        f"| {one.part} | {one.what} | {one.value:.3g} {one.unit} | {one.other:.3g} | "
        f"{one.ratio:.2f} | {one.bar} | {'holds' if one.holds else 'MISSED'} |"
        for one in figures
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = ("static", "serve", "ttft", "one", "promotion", "release", "web")
    parser.add_argument("--only", choices=parts, action="append", help="this part; repeatable")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of each comparison")
    parser.add_argument("--model", help="directory of the base model; default: SmolLM2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args(argv)
    WORK.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.model or str(prepare(ROOT / "var" / "models")), arguments.repeats)
    conditions = {
        "model": Path(bench.model).name,
        "cores": os.cpu_count(),
        "repeats": arguments.repeats,
        "load_at_start": round(os.getloadavg()[0], 1),
    }
    print(", ".join(f"{name} {value}" for name, value in conditions.items()), flush=True)
    figures: list[Figure] = []
    for part in arguments.only or parts:
        measure: Callable[[], list[Figure]] = getattr(bench, part)
        load, measured = os.getloadavg()[0], measure()
        figures += measured
        print(f"{part} (load before {load:.1f})\n{table(measured)}\n", flush=True)
    print(table(figures))
    if arguments.json:
        printed = {
            **conditions,
            "figures": [{**asdict(one), "holds": one.holds} for one in figures],
        }
        arguments.json.write_text(json.dumps(printed, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
