"""Several processes of one run, started by the launcher: the result equals that of one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.engines import PATIENCE
from tests.tiny import tiny_tokenizer
from tests.trainer.conftest import MakeRun, events, example
from tests.trainer.distributed.sharing import ROWS
from tests.trainer.models.test_families import FAMILIES
from trainer.artifacts.adapter_directory import WEIGHTS
from trainer.data.chat import eos_ids
from trainer.data.examples import write_examples
from trainer.forward.logprobs import score
from trainer.models.loading import LoadedBase

# two interpreters import torch at the same time, which is slow on a busy machine
pytestmark = [pytest.mark.slow, pytest.mark.long]

DEADLINE = PATIENCE


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect launchers and end them with their children, also after a failed test."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def launch(started: list[subprocess.Popen[str]], *module: str) -> subprocess.Popen[str]:
    """Run `accelerate launch -m …` with two processes on the CPU."""
    port = free_port()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    # accelerate starts several processes for devices only; without one ours fall back to gloo
    command += [
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
    ]
    command += [f"--main_process_port={port}", "--num_cpu_threads_per_process=1"]
    process = subprocess.Popen(
        [*command, "-m", *module],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    started.append(process)
    return process


def alone(run_dir: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "trainer", "train", str(run_dir)],
        check=True,
        timeout=DEADLINE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.mark.parametrize("fsdp", [False, True], ids=["whole", "sharded"])
def test_two_processes_train_the_same_adapter_as_one(
    make_run: MakeRun, started: list[subprocess.Popen[str]], fsdp: bool
) -> None:
    # 11 examples in batches of 4: the last step of an epoch is smaller and divides unevenly; three
    # completions are one token long, which z₀ scores without running the model
    examples = [example(number) for number in range(8)]
    examples += [example(number, completion="x", finish_reason="length") for number in range(8, 11)]
    held = [example(number) for number in range(30, 42)]
    # a moderate rate: Adam turns a last-bit difference in a tiny gradient into a whole step
    settings = {"token_budget": 40, "probe_every": 3, "kl_brake": 50.0, "learning_rate": 1e-3}
    settings["fsdp"] = fsdp  # a single process shards nothing
    # a step is 150 to 180 tokens: one process may hold more and the other less
    settings["held_tokens"] = 80
    one, two = (make_run(name, examples=examples, **settings) for name in ("one", "two"))
    for run_dir in (one, two):
        write_examples(run_dir / "validation.jsonl", held)
    alone(one)
    process = launch(started, "trainer", "train", str(two))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output

    steps = [events(run_dir, "step") for run_dir in (one, two)]
    assert [len(found) for found in steps] == [6, 6]
    for expected, found in zip(*steps, strict=True):
        for name in ("loss", "kl", "kl_unclamped", "reward_desirable", "reward_undesirable"):
            if expected[name] is not None:
                assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-5), name
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
    probes = [events(run_dir, "probe") for run_dir in (one, two)]
    for expected, found in zip(*probes, strict=True):
        assert found["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-5)
    weights = [load_file(run_dir / "adapter" / WEIGHTS) for run_dir in (one, two)]
    for name, expected in weights[0].items():
        assert (weights[1][name] - expected).abs().max() <= 1e-5, name
    # only the first process writes: one start event, one adapter, no partial files
    (start,) = events(two, "start")
    assert start["processes"] == 2
    assert len(events(two, "done")) == 1
    assert not list(two.glob(".*.partial"))


def test_processes_of_hosts_without_a_common_directory_train_the_same_adapter_as_one(
    make_run: MakeRun, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    one, first = (
        make_run(name, token_budget=40, learning_rate=1e-3, held_tokens=80)
        for name in ("one", "first")
    )
    shutil.copytree(first, tmp_path / "second")
    alone(one)
    # the first host has values of the reference from an earlier run
    shutil.copytree(one / "reference", first / "reference")
    port = str(free_port())
    for rank, run_dir in enumerate((first, tmp_path / "second")):
        variables = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "train", str(run_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                **variables,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            },
        )
        started.append(process)
    for process in started:
        output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, output
    expected, found = (load_file(run_dir / "adapter" / WEIGHTS) for run_dir in (one, first))
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= 1e-5, name
    assert not (tmp_path / "second" / "adapter").exists()


@pytest.mark.parametrize("fsdp", [False, True], ids=["whole", "sharded"])
def test_killed_process_ends_all_with_one_error_and_the_run_resumes(
    make_run: MakeRun, started: list[subprocess.Popen[str]], fsdp: bool
) -> None:
    run_dir = make_run(epochs=400, checkpoint_every=1, token_budget=40, fsdp=fsdp)
    process = launch(started, "trainer", "train", str(run_dir))
    wait_for(run_dir, "checkpoint", process)
    victim = ranks(run_dir)[1]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode != 0
    assert output.count("another of the 2 processes of this run has ended") == 1
    last = events(run_dir, "step")[-1]["step"]
    assert not (run_dir / "adapter").exists()

    # with fewer epochs the same directory could not be resumed; unchanged, it resumes
    process = launch(started, "trainer", "train", str(run_dir))
    wait_for(run_dir, "start", process, count=2)
    resumed = events(run_dir, "start")[-1]["resumed_from_step"]
    assert 1 <= resumed <= last
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=DEADLINE)


def test_process_without_memory_makes_all_repeat_the_step_in_smaller_packs(
    make_run: MakeRun, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    settings = {"token_budget": 40, "learning_rate": 1e-3, "held_tokens": 500}
    one, two = (make_run(name, **settings) for name in ("one", "two"))
    alone(one)
    mark = tmp_path / "failed"
    process = launch(started, "tests.trainer.distributed.short_of_memory", str(two), str(mark))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    assert mark.exists()
    (warning,) = events(two, "warning")
    assert warning["message"] == "out of memory: going on with packs of 40 tokens, 0 of them held"
    for expected, found in zip(events(one, "step"), events(two, "step"), strict=True):
        for name in ("loss", "kl_unclamped", "grad_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name
    weights = [load_file(run_dir / "adapter" / WEIGHTS) for run_dir in (one, two)]
    for name, expected in weights[0].items():
        assert (weights[1][name] - expected).abs().max() <= 1e-5, name


def test_process_without_memory_ends_a_sharded_run_that_goes_on_in_smaller_packs(
    make_run: MakeRun, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Nothing can be agreed upon: the others wait for this process inside of a layer."""
    run_dir = make_run(token_budget=80, held_tokens=500, fsdp=True)
    module = "tests.trainer.distributed.short_of_memory", str(run_dir), str(tmp_path / "failed")
    process = launch(started, *module)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode != 0
    assert "start all of them again to go on from the last checkpoint in smaller packs" in output
    assert not events(run_dir, "failed")
    packs = json.loads((run_dir / "checkpoints" / "packs.json").read_text())
    assert packs == {"pack": 80, "held": 0}

    process = launch(started, *module)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    assert len(events(run_dir, "done")) == 1


def test_sharded_base_of_every_family_is_halved_and_computes_the_same(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    tokenizer = tiny_tokenizer()
    bases = []
    for name, family in FAMILIES.items():
        config = family.config(
            **family.sizes,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(20)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        bases.append(str(tmp_path / name))
    process = launch(started, "tests.trainer.distributed.sharing", str(tmp_path), *bases)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    for rank in (0, 1):
        looks = json.loads((tmp_path / f"{rank}.json").read_text())
        assert set(looks) == set(FAMILIES)
        for name, look in looks.items():
            share = (look["kept"] - look["head"]) / (look["whole"] - look["head"])
            assert share == pytest.approx(0.5, abs=0.005), name
            # an unsharded base may run in training_decoder.py, which sums in another order
            assert look["apart"] <= 2e-5, name
            assert look["slopes_apart"] <= 2e-5, name
            assert look["same_answer"], name


def test_only_the_first_process_reads_the_weights_of_a_sharded_base(
    tiny: LoadedBase, tiny_dir: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_dir, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    module = "tests.trainer.distributed.loading_once"
    process = launch(started, module, str(tmp_path), str(tiny_dir), str(bare))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    with torch.no_grad():
        values = score(tiny.model, ROWS).logprobs.values.tolist()
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["fingerprint"] == tiny.fingerprint
        assert found["values"] == pytest.approx(values, abs=2e-5)
        assert found["eos"] == sorted(eos_ids(tiny.model, tiny.tokenizer))


def test_base_that_the_first_process_cannot_read_ends_all_processes(
    tiny_dir: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_dir, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    module = "tests.trainer.distributed.loading_once"
    process = launch(started, module, str(tmp_path), str(bare), str(bare))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    for rank in (0, 1):
        error = json.loads((tmp_path / f"{rank}.json").read_text())["error"]
        assert f"The base model {str(bare)!r} cannot be loaded" in error


def wait_for(run_dir: Path, kind: str, process: subprocess.Popen[str], count: int = 1) -> None:
    """Wait until the run has written `count` events of a kind."""
    path = run_dir / "events.jsonl"
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        text = path.read_text() if path.exists() else ""
        if text.count(f'"type": "{kind}"') >= count:
            return
        assert process.poll() is None, process.communicate()[0]
        os.sched_yield()
    raise AssertionError(f"no event {kind!r} within {DEADLINE} s")


def ranks(run_dir: Path) -> list[int]:
    """Return the pids of a run in the order of their ranks."""
    found: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
            given = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranked = [variable for variable in given if variable.startswith(b"RANK=")]
        if ranked and command.endswith(f"train\0{run_dir}\0".encode()):
            found[int(ranked[0][5:])] = int(directory.name)
    return [found[rank] for rank in sorted(found)]
