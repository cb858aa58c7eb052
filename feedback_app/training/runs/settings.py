"""The settings of a run as data: how the form, the command and messages show each of them, and what
it may be. `RunConfig` has the defaults; the trainer's names are the same."""

from dataclasses import dataclass

LOSS, OPTIMISER, ADAPTER = "Loss", "Optimiser", "Adapter"
STOPPING, MEMORY = "Stopping", "Memory and precision"
#: The groups in the order of the page, and whether a group is collapsed at first.
GROUPS = {LOSS: False, OPTIMISER: False, ADAPTER: False, STOPPING: False, MEMORY: True}

SFT, DPO = "sft", "dpo"
BASE, LIVE = "base", "live"
PISSA = "pissa"
#: PiSSA saves twice the rank, and a version may have at most 256.
PISSA_MAX_RANK = 128

LOSSES = (
    ("kto", "KTO"),
    ("kto_clamped", "KTO, clamped tokens"),
    ("apo_zero_unpaired", "APO-zero"),
    ("bco", "BCO"),
    (SFT, "SFT on the ups"),
    (DPO, "DPO"),
)
#: Losses without β, and without class weights λ.
WITHOUT_BETA = (SFT,)
WITHOUT_LAMBDA = (SFT, DPO)
#: The settings that a loss does not have: forms hide and ignore them (static/css/train.css).
UNUSED = {
    SFT: ("beta", "lambda_d", "lambda_u", "sft_weight"),
    DPO: ("lambda_d", "lambda_u"),
}


@dataclass(frozen=True)
class Setting:
    """A number within `bounds`, one of `choices` (value and label), or else a switch. `empty` says
    what no value means, for a setting that may have none."""

    name: str
    label: str
    help: str
    group: str
    bounds: tuple[float, float] | None = None
    whole: bool = False
    choices: tuple[tuple[str, str], ...] = ()
    empty: str = ""


SETTINGS = (
    Setting(
        "loss",
        "Loss",
        "KTO learns from single votes. DPO needs prompts with both an up and a down; SFT learns "
        "from the ups alone.",
        LOSS,
        choices=LOSSES,
    ),
    Setting(
        "beta",
        "β",
        "Higher keeps the model closer to where it starts. SFT has none.",
        LOSS,
        bounds=(0.01, 5),
        empty="0.5",
    ),
    Setting(
        "lambda_d",
        "λ of ups",
        "How much an up counts. By the rule, the class with less weight counts more.",
        LOSS,
        bounds=(0.05, 20),
        empty="by the rule",
    ),
    Setting(
        "lambda_u",
        "λ of downs",
        "How much a down counts.",
        LOSS,
        bounds=(0.05, 20),
        empty="by the rule",
    ),
    Setting(
        "sft_weight",
        "Weight of SFT on the ups",
        "Adds the SFT loss of the liked answers to the preference loss, so that they do not become "
        "less likely. 0: off.",
        LOSS,
        bounds=(0, 1),
    ),
    Setting(
        "epochs",
        "Epochs",
        "How often each example is seen.",
        OPTIMISER,
        bounds=(1, 20),
        whole=True,
    ),
    Setting(
        "batch_size",
        "Batch",
        "Examples per optimiser step.",
        OPTIMISER,
        bounds=(2, 256),
        whole=True,
    ),
    Setting(
        "learning_rate",
        "Learning rate",
        "Too low has no effect, too high damages the model. Larger models need a lower one.",
        OPTIMISER,
        bounds=(1e-7, 1e-2),
    ),
    Setting(
        "lr_schedule",
        "Schedule of the learning rate",
        "How it changes after the warm-up.",
        OPTIMISER,
        choices=(
            ("linear", "Linear to zero"),
            ("cosine", "Cosine to zero"),
            ("constant", "Constant"),
        ),
    ),
    Setting(
        "warmup_ratio",
        "Warm-up",
        "Share of the steps in which the learning rate rises from zero.",
        OPTIMISER,
        bounds=(0, 1),
    ),
    Setting(
        "weight_decay",
        "Weight decay",
        "Pulls the adapter’s weights towards zero.",
        OPTIMISER,
        bounds=(0, 1),
    ),
    Setting(
        "start_from",
        "Start from",
        "The live version as it is when you press Train now: what it learned is kept, and β and "
        "the KL brake are measured from it.",
        ADAPTER,
        choices=((BASE, "The base model"), (LIVE, "The live version")),
    ),
    Setting(
        "lora_r",
        "LoRA rank",
        "Size of the adapter. The engine must allow it.",
        ADAPTER,
        bounds=(1, 256),
        whole=True,
    ),
    Setting(
        "lora_alpha",
        "LoRA α",
        "The adapter’s effect is multiplied by α/rank.",
        ADAPTER,
        bounds=(1, 1024),
        whole=True,
    ),
    Setting(
        "lora_dropout",
        "LoRA dropout",
        "Share of the adapter’s inputs that each step ignores.",
        ADAPTER,
        bounds=(0, 0.9),
    ),
    Setting(
        "use_rslora",
        "Rank-stabilised scaling (rsLoRA)",
        "Multiplies by α/√rank instead: a high rank keeps its effect.",
        ADAPTER,
    ),
    Setting(
        "target_modules",
        "Adapted layers",
        "Which layers the adapter changes. Fewer make a smaller adapter that learns less.",
        ADAPTER,
        choices=(("all", "All"), ("attention", "Attention"), ("mlp", "MLP")),
    ),
    Setting(
        "lora_init",
        "Initial adapter",
        "PiSSA starts from the strongest directions of the base’s weights and often learns faster. "
        "The version has twice the rank, which the engine must allow.",
        ADAPTER,
        choices=(("default", "LoRA: no effect"), (PISSA, "PiSSA")),
    ),
    Setting(
        "kl_brake",
        "KL brake",
        "KL to where training started, in nats per token, at which it stops.",
        STOPPING,
        bounds=(0.01, 10),
        empty="off",
    ),
    Setting(
        "patience",
        "Early stopping",
        "Checks in a row with a rising loss on the validation examples, after which training "
        "stops.",
        STOPPING,
        bounds=(1, 100),
        whole=True,
        empty="off",
    ),
    Setting(
        "max_length",
        "Maximum length",
        "Tokens of prompt and answer. Longer prompts lose their oldest turns.",
        MEMORY,
        bounds=(64, 131_072),
        whole=True,
    ),
    Setting(
        "dtype",
        "Precision",
        "The type that the model computes in. Automatic: what the worker’s processor computes "
        "fast.",
        MEMORY,
        choices=(
            ("auto", "Automatic"),
            ("float32", "float32"),
            ("bfloat16", "bfloat16"),
            ("float16", "float16"),
        ),
    ),
    Setting(
        "quantisation",
        "Quantisation",
        "4-bit holds the base model in a quarter of its memory, in training and in the gate. The "
        "engine should hold it so too (ENGINE_QUANTISATION). Slow on CPUs.",
        MEMORY,
        choices=(("", "None"), ("4bit", "4-bit")),
        empty="none",
    ),
    Setting(
        "gradient_checkpointing",
        "Gradient checkpointing",
        "Computes activations again instead of keeping them: slower, in less memory. Automatic "
        "means on GPUs: for models of more than a billion parameters, else where memory is short.",
        MEMORY,
        choices=(("", "Automatic"), ("on", "On"), ("off", "Off")),
        empty="automatic",
    ),
    Setting(
        "token_budget",
        "Tokens of a pack",
        "How many tokens run through the model at once.",
        MEMORY,
        bounds=(64, 1_000_000),
        whole=True,
        empty="automatic",
    ),
    Setting(
        "held_tokens",
        "Held tokens",
        "How many tokens’ activations may wait for z₀, which saves a second pass.",
        MEMORY,
        bounds=(0, 10_000_000),
        whole=True,
        empty="automatic",
    ),
    Setting(
        "seed",
        "Seed",
        "The same seed gives the same run.",
        OPTIMISER,
        bounds=(0, 2**31 - 1),
        whole=True,
    ),
    Setting(
        "deterministic",
        "Deterministic",
        "A GPU repeats the run bit for bit, at some cost in speed. A CPU always does.",
        MEMORY,
    ),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
