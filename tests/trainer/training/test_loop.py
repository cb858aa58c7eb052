"""Whole runs on a tiny model: their output, what stops them, where they resume."""

import json
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

from tests.trainer.conftest import MakeRun, events, example
from trainer.artifacts.adapter_directory import MANIFEST, WEIGHTS, verify_adapter
from trainer.backends import VARIABLE
from trainer.backends.torch_reference import attention
from trainer.config import TrainConfig
from trainer.data.examples import write_examples
from trainer.directory_lock import locked
from trainer.errors import Cancelled, Refused, RunFailed, TrainerError
from trainer.evaluation.kl_probe import KlEstimate, KlProbe
from trainer.events import EventLog
from trainer.models.lora import MasterWeights
from trainer.signals import StopRequest
from trainer.training import early_stopping, loop, reference_cache, step, train
from trainer.training.checkpoint import save_checkpoint
from trainer.training.reference_cache import ReferenceCache, pair_key
from trainer.training.schedule import learning_rate

pytestmark = pytest.mark.slow


def weights(run_dir: Path) -> bytes:
    return (run_dir / "adapter" / WEIGHTS).read_bytes()


def test_run_writes_adapter_fit_and_events(make_run: MakeRun) -> None:
    run_dir = make_run()
    train.train(run_dir)

    manifest = verify_adapter(run_dir / "adapter", base_fingerprint=None, max_rank=4)
    assert manifest.name == "starter@1"
    assert manifest.train["steps"] == 6  # 2 epochs of 9 examples in steps of at most 4
    (start,) = events(run_dir, "start")
    assert (start["examples"], start["desirable"], start["undesirable"]) == (9, 5, 4)
    assert (start["lambda_d"], start["lambda_u"]) == (1.0, 1.0)
    assert start["resumed_from_step"] == 0
    assert start["libraries"]["torch"] == torch.__version__
    assert start["hardware"]["processor"]
    assert start["hardware"]["cores"] > 0
    assert manifest.train["libraries"] == start["libraries"]
    steps = events(run_dir, "step")
    assert [found["step"] for found in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-5)  # at the start π equals π₀
    assert steps[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert steps[-1]["epoch"] == 2
    assert steps[-1]["eta_seconds"] == 0
    phases = [found["phase"] for found in events(run_dir, "phase")]
    assert list(dict.fromkeys(phases)) == ["loading", "reference", "training", "saving"]
    (done,) = events(run_dir, "done")
    assert done["sha256"] == manifest.sha256
    fit = [json.loads(line) for line in (run_dir / "fit.jsonl").read_text().splitlines()]
    assert sorted(found["id"] for found in fit) == [f"e{number}" for number in range(9)]
    assert {type(found["reward"]) for found in fit} == {float}
    assert "5 up, 4 down" in (run_dir / "adapter" / "README.md").read_text()


def test_training_separates_ups_from_downs(make_run: MakeRun) -> None:
    run_dir = make_run(epochs=12)
    train.train(run_dir)
    last = events(run_dir, "step")[-3:]
    assert sum(found["margin"] for found in last) / 3 > 2
    assert last[-1]["loss"] < 0.45


def test_same_seed_gives_the_same_bytes_and_another_seed_others(make_run: MakeRun) -> None:
    runs = [make_run("a", seed=1), make_run("b", seed=1), make_run("c", seed=2)]
    for run_dir in runs:
        train.train(run_dir)
    assert weights(runs[0]) == weights(runs[1]) != weights(runs[2])
    assert (runs[0] / "fit.jsonl").read_bytes() == (runs[1] / "fit.jsonl").read_bytes()


def test_complete_run_is_unchanged(make_run: MakeRun) -> None:
    run_dir = make_run()
    train.train(run_dir)
    before = (run_dir / "events.jsonl").read_bytes()
    train.train(run_dir)
    assert (run_dir / "events.jsonl").read_bytes() == before


def test_run_that_was_killed_before_its_done_event_writes_it(make_run: MakeRun) -> None:
    run_dir = make_run()
    train.train(run_dir)
    lines = (run_dir / "events.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "events.jsonl").write_text("".join(lines[:-1]))
    train.train(run_dir)
    assert [json.loads(line)["sha256"] for line in lines[-1:]] == [
        found["sha256"] for found in events(run_dir, "done")
    ]


def test_out_of_memory_fails_the_run_with_advice(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "score", exhausted)
    run_dir = make_run()
    with pytest.raises(RunFailed, match="out of memory: lower token_budget"):
        train.train(run_dir)
    assert events(run_dir, "failed")


def test_failed_step_is_freed_before_memory_is_given_back(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback of the error holds the frames of the step, and they its activations."""
    graphs: list[weakref.ref[Any]] = []
    alive: list[bool] = []
    real = step.score

    def scarce(model: Any, rows: Any, **given: Any) -> Any:
        scored = real(model, rows, **given)
        if torch.is_grad_enabled() and not graphs:
            graphs.append(weakref.ref(scored.logprobs.values))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scored

    monkeypatch.setattr(step, "score", scarce)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive.extend(one() is not None for one in graphs)
    )
    train.train(make_run())
    assert alive == [False]


def test_run_remembers_that_it_ran_out_of_memory(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(held_tokens=500)
    real, stop = step.score, StopRequest()
    failed: list[int] = []

    def scarce(model: Any, rows: Any, **given: Any) -> Any:
        if torch.is_grad_enabled() and len(failed) < 2:
            failed.append(len(rows))
            raise torch.OutOfMemoryError("CUDA out of memory")
        stop.asked = len(failed) == 2  # the run is interrupted in its first step
        return real(model, rows, **given)

    monkeypatch.setattr(step, "score", scarce)
    with pytest.raises(Cancelled):
        train.train(run_dir, stop=stop)
    monkeypatch.undo()
    begun: list[tuple[int, int]] = []
    steps = loop.Trainer._steps

    def recorded(trainer: loop.Trainer) -> None:
        begun.append((trainer.budget.pack, trainer.budget.held))
        steps(trainer)

    monkeypatch.setattr(loop.Trainer, "_steps", recorded)
    train.train(run_dir)
    assert begun == [(64, 0)]


class OnlyTheFormula(TorchFunctionMode):
    """Inside, no fused attention kernel takes anything."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self._error = error

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        attention = func is torch.nn.functional.scaled_dot_product_attention
        if attention and torch.backends.cuda.flash_sdp_enabled():
            raise self._error
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_missing_attention_kernel_is_replaced_by_the_formula_and_said_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv(VARIABLE, "torch_reference")
    monkeypatch.setattr(attention, "FUSED", attention._Fused())
    whole, lacking = make_run("whole"), make_run("lacking")
    train.train(whole)
    missing = RuntimeError("cuDNN Frontend error: No execution plans support the graph.")
    lacks: AbstractContextManager[Any]
    if where == "forward":
        lacks = OnlyTheFormula(missing)
    else:
        real = MasterWeights.gradients_of

        def gradients_of(masters: MasterWeights, loss: torch.Tensor) -> Any:
            if not attention.FUSED.given_up:
                raise missing
            return real(masters, loss)

        monkeypatch.setattr(MasterWeights, "gradients_of", gradients_of)
        lacks = nullcontext()
    with lacks:
        train.train(lacking)
    (warning,) = events(lacking, "warning")
    assert warning["message"] == (
        "attention is computed by its formula, which is slower and takes more memory: this device "
        "has no kernel for it (cuDNN Frontend error: No execution plans support the graph.)"
    )
    for before, after in zip(events(whole, "step"), events(lacking, "step"), strict=True):
        assert after["loss"] == pytest.approx(before["loss"], abs=1e-4)


def test_another_error_of_attention_is_raised(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "torch_reference")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train.train(make_run())


def test_out_of_memory_is_retried_with_smaller_packs(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty, short = make_run("plenty"), make_run("short")
    train.train(plenty)
    real = step.score

    def scarce(model: Any, rows: Any, **given: Any) -> Any:
        if torch.is_grad_enabled() and sum(len(x) + len(y) for x, y in rows) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, rows, **given)

    monkeypatch.setattr(step, "score", scarce)
    train.train(short)
    warnings = [found["message"] for found in events(short, "warning")]
    assert warnings[0] == "out of memory: going on with packs of 128 tokens, 0 of them held"
    assert warnings[1] == "out of memory: going on with packs of 64 tokens, 0 of them held"
    for before, after in zip(events(plenty, "step"), events(short, "step"), strict=True):
        assert after["loss"] == pytest.approx(before["loss"], abs=1e-4)
        assert after["kl_unclamped"] == pytest.approx(before["kl_unclamped"], abs=1e-3)


def test_example_weight_scales_its_effect(make_run: MakeRun) -> None:
    light = [example(n, weight=0.01 if n % 2 else 1.0) for n in range(9)]
    runs = [make_run("even", epochs=4), make_run("light", epochs=4, examples=light)]
    fits = []
    for run_dir in runs:
        train.train(run_dir)
        fit = [json.loads(line) for line in (run_dir / "fit.jsonl").read_text().splitlines()]
        fits.append(sum(found["reward"] for found in fit if not found["label"]))
    assert fits[0] < fits[1]  # downs of low weight are pushed away less


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ([example(0), example(6)], "all 2 examples are desirable"),
        ([example(0)], "at least 2 are needed"),
        ([example(0, completion=" "), example(3)], "completion is empty"),
    ],
)
def test_invalid_examples_are_refused_before_the_model_is_loaded(
    make_run: MakeRun, examples: list[Any], reason: str
) -> None:
    run_dir = make_run(examples=examples, base_model="/no/such/model")
    with pytest.raises(Refused, match=reason):
        train.train(run_dir)
    (failed,) = events(run_dir, "failed")
    assert reason in failed["reason"]
    assert failed["step"] is None


def test_errors_of_config_and_examples_are_reported_together(make_run: MakeRun) -> None:
    run_dir = make_run(examples=[example(0)], beta=-1)
    with pytest.raises(Refused) as caught:
        train.train(run_dir)
    assert "beta must be above 0" in str(caught.value)
    assert "at least 2 are needed" in str(caught.value)


def test_unusual_snapshot_is_trained_completely(make_run: MakeRun) -> None:
    run_dir = make_run(
        examples=[example(0), example(1), example(3)], batch_size=2, epochs=1, token_budget=1
    )
    train.train(run_dir)
    assert [found["step"] for found in events(run_dir, "step")] == [1, 2]


def test_all_duplicates_under_two_prompts_are_trained(make_run: MakeRun) -> None:
    same = [example(n, completion="Same.") for n in (0, 1, 3, 4)]
    run_dir = make_run(examples=same, epochs=1)
    train.train(run_dir)
    assert events(run_dir, "done")


def test_prompt_of_100000_tokens_is_shortened_and_reported(make_run: MakeRun) -> None:
    from trainer.data.messages import Message

    turns = [Message("user", "word " * 2000), Message("assistant", "word " * 2000)] * 10
    endless = example(20, prompt=(*turns, Message("user", "And?")))
    run_dir = make_run(examples=[example(0), example(3), endless], epochs=1, max_length=128)
    train.train(run_dir)
    (start,) = events(run_dir, "start")
    assert start["prompts_truncated"] == 1
    (warning,) = events(run_dir, "warning")
    assert "1 prompt(s) lost their oldest turns" in warning["message"]


def test_nan_loss_stops_the_run_and_leaves_no_adapter(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step.score
    calls = []

    def broken(model: Any, rows: Any, **given: Any) -> Any:
        found = real(model, rows, **given)
        calls.append(1)
        if not torch.is_grad_enabled() or len(calls) <= 3:
            return found
        values = found.logprobs.values * float("nan")
        return replace(found, logprobs=replace(found.logprobs, values=values))

    monkeypatch.setattr(step, "score", broken)
    run_dir = make_run()
    with pytest.raises(RunFailed, match=r"not a finite number at step \d: lower learning_rate"):
        train.train(run_dir)
    (failed,) = events(run_dir, "failed")
    assert failed["step"] == len(events(run_dir, "step")) + 1
    assert "lower learning_rate" in failed["advice"]
    assert not (run_dir / "adapter").exists()


def test_exploding_policy_stops_the_run(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    # a model this small cannot drift ten nats per token, so the limit is lowered
    monkeypatch.setattr(early_stopping, "EXPLODED_NATS_PER_TOKEN", 0.5)
    run_dir = make_run(learning_rate=1.0, warmup_ratio=0.0)
    with pytest.raises(RunFailed, match=r"the policy exploded \(\d+\.\d nats per token"):
        train.train(run_dir)
    assert not (run_dir / "adapter").exists()


def probe_of(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the run's probes return these values in turn."""
    left = iter(values)
    monkeypatch.setattr(KlProbe, "measure", lambda *_, **__: KlEstimate(next(left), (0.0,)))


def test_brake_exports_the_last_adapter_below_the_limit(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = make_run("short", probe_every=2, kl_brake=0.5, lr_schedule="constant")
    probe_of([0.1, 0.2, 0.9, 0.0], monkeypatch)
    train.train(short)
    (braked,) = events(short, "braked")
    assert (braked["step"], braked["kl_per_token"]) == (6, 0.9)
    assert "the adapter of step 4 is kept" in braked["message"]
    manifest = json.loads((short / "adapter" / MANIFEST).read_text())
    assert manifest["train"]["steps"] == 4

    # the adapter of step 4 equals the masters after step 4
    other = make_run("other", lr_schedule="constant", checkpoint_every=4)
    monkeypatch.setattr(loop, "save_checkpoint", kept(save_checkpoint, other))
    train.train(other)
    expected = load_file(other / "step-4.safetensors")
    found = load_file(short / "adapter" / WEIGHTS)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_brake_of_a_short_run_keeps_an_earlier_adapter(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(probe_every=10, kl_brake=0.5)
    probe_of([0.1, 0.2, 0.9], monkeypatch)
    train.train(run_dir)
    assert len(events(run_dir, "step")) < 10
    (braked,) = events(run_dir, "braked")
    assert "over the brake of 0.5; the adapter of step 4 is kept" in braked["message"]


def kept(real: Any, directory: Path) -> Any:
    """Return a save_checkpoint that also keeps the masters of each step."""
    from safetensors.torch import save_file

    def save(where: Path, position: Any, *, masters: Any, optimizer: Any) -> None:
        copies = {name: tensor.clone() for name, tensor in masters.items()}
        save_file(copies, directory / f"step-{position.step}.safetensors")
        real(where, position, masters=masters, optimizer=optimizer)

    return save


def test_brake_at_the_first_probe_fails_the_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(probe_every=2, kl_brake=0.5)
    probe_of([0.9], monkeypatch)
    with pytest.raises(RunFailed, match=r"over the brake of 0\.5"):
        train.train(run_dir)
    assert not (run_dir / "adapter").exists()


@pytest.mark.slow
def test_lambda_is_set_by_the_summed_weights_of_each_class(make_run: MakeRun) -> None:
    """Four ups of weight 1 and four downs of weight 0.25: 4 / (λ_U·1) = 4/3."""
    weighed = [
        example(number, weight=1.0 if number % 2 == 0 else 0.25, label=number % 2 == 0)
        for number in range(8)
    ]
    run_dir = make_run(examples=weighed, epochs=1)
    train.train(run_dir)
    (start,) = events(run_dir, "start")
    assert (start["desirable"], start["undesirable"]) == (4, 4)
    assert (start["lambda_d"], start["lambda_u"]) == (1.0, pytest.approx(3.0))
    card = (run_dir / "adapter" / "README.md").read_text()
    assert "| `lambda_u` | 3 |" in card
    assert "λ_D·W_D / (λ_U·W_U) in [1, 4/3], W the summed example weights of a class" in card


@pytest.mark.parametrize("loss", ["kto", "kto_clamped", "apo_zero_unpaired", "bco", "sft", "dpo"])
def test_every_loss_trains(make_run: MakeRun, loss: str) -> None:
    run_dir = make_run(loss=loss, epochs=6)
    write_examples(run_dir / "validation.jsonl", [example(number) for number in range(30, 48)])
    train.train(run_dir)
    (probe,) = events(run_dir, "probe")
    assert probe["validation_loss"] > 0
    # SFT learns from ups alone, and measures no downs
    assert (probe["validation_ranking"] is None) == (loss == "sft")
    tensors = load_file(run_dir / "adapter" / WEIGHTS)
    # B starts as zeros
    assert all(tensor.abs().max() > 1e-3 for name, tensor in tensors.items() if "lora_B" in name)
    per_epoch = len(events(run_dir, "step")) // 6
    losses = [found["loss"] for found in events(run_dir, "step")]
    assert sum(losses[-per_epoch:]) < sum(losses[:per_epoch])


def test_activation_checkpointing_trains_the_same_bytes(make_run: MakeRun) -> None:
    plain = make_run("plain", lora_dropout=0.1)
    saving = make_run("saving", lora_dropout=0.1, gradient_checkpointing=True)
    for run_dir in (plain, saving):
        train.train(run_dir)
    assert weights(saving) == weights(plain)


@pytest.mark.slow
def test_runs_that_share_a_reference_compute_only_new_values(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[list[bytes]] = []
    added: list[set[bytes]] = []
    score, add = reference_cache.score, ReferenceCache.add

    def counted(model: Any, rows: Any) -> Any:
        scored[-1] += [pair_key(row) for row in rows]
        return score(model, rows)

    def noted(cache: ReferenceCache, values: Any) -> None:
        added[-1] |= values.keys() - cache._found.keys()
        add(cache, values)

    monkeypatch.setattr(reference_cache, "score", counted)
    monkeypatch.setattr(ReferenceCache, "add", noted)
    shared = {"reference_cache": str(tmp_path / "shared")}
    old = [example(number) for number in range(60)]
    runs = [
        make_run("old", examples=old, **shared),
        make_run("both", examples=[*old, *(example(number) for number in range(60, 64))], **shared),
        make_run("alone", examples=[*old, *(example(number) for number in range(60, 64))]),
    ]
    for run_dir in runs:
        scored.append([])
        added.append(set())
        train.train(run_dir)
    first, second, alone = added
    assert all(len(found) == len(set(found)) for found in scored), "a pair was computed twice"
    # the first step's examples are the policy's own scores
    assert all(new - set(found) for found, new in zip(scored[::2], added[::2], strict=True))
    assert len(alone) >= 64 + 48  # each example's own completion, and its mismatches of two epochs
    assert second == alone - first
    assert 4 <= len(second) < len(alone) / 3


def test_probe_measures_answers_of_the_policy(make_run: MakeRun) -> None:
    run_dir = make_run(probe_every=3, epochs=4)
    train.train(run_dir)
    probes = events(run_dir, "probe")
    assert [found["step"] for found in probes] == [3, 6, 9, 12]
    assert probes[-1]["kl_per_token"] > probes[0]["kl_per_token"] > 0
    assert probes[0]["answers"] == 3  # one per prompt


def test_checkpoints_of_another_config_are_refused(make_run: MakeRun) -> None:
    run_dir = make_run()
    train.train(run_dir)
    (run_dir / "adapter" / MANIFEST).unlink()
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**config, "beta": 0.7}))
    with pytest.raises(Refused, match="changed since this run began"):
        train.train(run_dir)


def test_damaged_checkpoint_falls_back_to_the_one_before(make_run: MakeRun) -> None:
    run_dir = make_run()
    train.train(run_dir)
    expected = weights(run_dir)
    (run_dir / "adapter" / MANIFEST).unlink()
    newest, before = sorted((run_dir / "checkpoints").glob("step-*"), reverse=True)
    (newest / "state.safetensors").write_bytes(b"half")
    train.train(run_dir)
    assert events(run_dir, "start")[-1]["resumed_from_step"] == int(before.name[5:])
    assert weights(run_dir) == expected


def test_second_process_on_one_run_is_refused(make_run: MakeRun) -> None:
    run_dir = make_run()
    with locked(run_dir), pytest.raises(TrainerError, match="another process is at work"):
        train.train(run_dir)


def test_learning_rate_warms_up_and_decays() -> None:
    def rates(**changes: Any) -> list[float]:
        config = TrainConfig("m", "a@1", learning_rate=1.0, warmup_ratio=0.2, **changes)
        return [round(learning_rate(config, number, 10), 4) for number in range(1, 11)]

    # 2 steps of warm-up; then remaining = (10 − step + 1)/9
    linear = [0.5, 1.0, *(round(left / 9, 4) for left in range(8, 0, -1))]
    assert rates(lr_schedule="linear") == linear
    assert rates(lr_schedule="constant") == [0.5, *[1.0] * 9]
    cosine = rates(lr_schedule="cosine")
    assert cosine[:2] == [0.5, 1.0]
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    assert 0 < cosine[-1] < 0.05


def test_event_after_a_partial_line_starts_a_new_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "st')
    with EventLog(path) as log:
        log.write("step", loss=float("nan"), step=3)
    torn, whole = path.read_text().splitlines()
    assert torn == '{"type": "st'
    assert json.loads(whole)["loss"] is None
