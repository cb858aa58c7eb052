"""All settings, read from the environment; `.env.example` explains each variable.

Three modes (`PROSPECT_ENV`): `local` (the default: one machine, plain HTTP on loopback, a
generated secret under var/), `test`, and `production` (rejects unsafe settings).
"""

import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import django_stubs_ext
import environ
import structlog
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.retry import Retry

from artifact_store.selection import is_url
from feedback_app.localstack.paths import FILES, HOME, private_directory

django_stubs_ext.monkeypatch()

BASE_DIR = FILES
env = environ.Env()
environ.Env.read_env(HOME / ".env")

MODE = env.str("PROSPECT_ENV", "local")
PRODUCTION = MODE == "production"
DEBUG = env.bool("DEBUG", False)
EXAMPLE_SECRET = "change-me"  # noqa: S105 - the value of .env.example, refused below

VAR = Path(env.str("PROSPECT_VAR", str(HOME / "var"))).resolve()
private_directory(VAR)
MODELS_ROOT = VAR / "models"
# A directory, or the URL of an object store (feedback_app/artifacts.py). With a URL, ARTIFACT_ROOT
# is the directory of this host that trees of the store are worked on in.
ARTIFACT_URL = env.str("ARTIFACT_ROOT", "")
if not is_url(ARTIFACT_URL):
    ARTIFACT_ROOT, ARTIFACT_URL = Path(ARTIFACT_URL or VAR / "artifacts").resolve(), ""
else:
    ARTIFACT_ROOT = Path(env.str("ARTIFACT_CACHE", str(VAR / "artifacts"))).resolve()
# gigabytes of adapters that a host of an object store keeps there; 0: any number
ARTIFACT_CACHE_GB = env.float("ARTIFACT_CACHE_GB", 20.0)
if not 0 <= ARTIFACT_CACHE_GB < float("inf"):
    raise ImproperlyConfigured("ARTIFACT_CACHE_GB is 0 or more.")


def local_secret() -> str:
    """Return a secret that is generated on the first start, so that sessions survive a restart."""
    path = VAR / "secret_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(50))
    return path.read_text().strip()


SECRET_KEY = env.str("SECRET_KEY", "") or ("" if PRODUCTION else local_secret())
# a page of another site can have its own name resolve to this machine
LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[] if PRODUCTION else LOOPBACK)
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# earlier secrets, while data that they signed or encrypted is in use
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
# password resets and invitations; without a mail server they are written to the web log
EMAIL = env.email_url_config(env.str("EMAIL_URL", "") or "consolemail://")
REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:6379/0")
# opens /metrics and the reasons of /readyz (monitoring/access.py)
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
HAS_SHARED_CACHE = REDIS_URL.startswith(("redis://", "rediss://", "unix://"))

if PRODUCTION:
    faults = []
    if not SECRET_KEY or EXAMPLE_SECRET in SECRET_KEY or len(SECRET_KEY) < 32:
        faults.append("SECRET_KEY must be set to a secret of your own, 32 characters or more")
    if DEBUG:
        faults.append("DEBUG must be off")
    if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:
        faults.append("ALLOWED_HOSTS must name the hosts that serve Prospect")
    if EMAIL["EMAIL_BACKEND"].endswith("console.EmailBackend"):
        faults.append("EMAIL_URL must name a mail server, so that no mail is written to the log")
    if not HAS_SHARED_CACHE:
        faults.append("REDIS_URL must name a Valkey or Redis server: it counts wrong passwords")
    if METRICS_TOKEN and len(METRICS_TOKEN) < 20:
        faults.append("METRICS_TOKEN must have 20 characters or more")
    if faults:
        raise ImproperlyConfigured("Refusing to start in production: " + "; ".join(faults) + ".")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.forms",  # the templates of its widgets, for FORM_RENDERER
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "csp",
    "django_htmx",
    "template_partials",
    "feedback_app.accounts",
    "feedback_app.feedback",
    "feedback_app.training",
    "feedback_app.serving",
    "feedback_app.api",
    "feedback_app.privacy",
    "feedback_app.monitoring",
    "feedback_app.config",
]

MIDDLEWARE = [
    "feedback_app.config.request_ids.request_ids",
    "feedback_app.monitoring.requests.measured",
    "feedback_app.monitoring.tracing.traced",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    # before the CSRF check, which reads the body
    "feedback_app.web.bodies.BodyLimit",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # every view requires a sign-in unless it is exempt
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "feedback_app.config.audit_address.audited",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "feedback_app.config.urls"
ASGI_APPLICATION = "feedback_app.config.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    }
]

FORM_RENDERER = "feedback_app.web.form_renderer.FormRenderer"

# -- database: SQLite for one machine, PostgreSQL by DATABASE_URL

DATABASES = {"default": env.db_url("DATABASE_URL", default=f"sqlite:///{VAR / 'prospect.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # a writer waits for the lock at BEGIN: no 'database is locked' halfway
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        # 32 MB of page cache: with the default a vote in a large project rereads its indexes
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
        "PRAGMA cache_size=-32768;",
    }
    # a new connection reads the schema, which takes longer than the queries of a request
    DATABASES["default"]["CONN_MAX_AGE"] = 60
    # a file, not memory: the tests' threads must use the same locks as in production
    DATABASES["default"]["TEST"] = {"NAME": str(VAR / "test.sqlite3")}
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 60
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["OPTIONS"] = {
        # psycopg prepares a statement at its fifth use; it needs parameters bound by the server.
        # Off for a transaction pooler without prepared statements (PgBouncer before 1.21).
        "server_side_binding": True,
        "prepare_threshold": 5 if env.bool("DATABASE_PREPARES", True) else None,
    }

# -- users

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
if MODE == "test":
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # tests sign in often
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "feedback_app.accounts.adapter.ClosedSignup"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False  # its mail would invite people without an invitation
ACCOUNT_SESSION_REMEMBER = True
# proxies in front that append the client's address to X-Forwarded-For; with 0 nothing is believed
ALLAUTH_TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", 0)

# -- second factors, optional

MFA_ADAPTER = "feedback_app.accounts.adapter.SealedFactors"
MFA_FORMS = {
    "authenticate": "feedback_app.accounts.second_factor.AuthenticateForm",
    "reauthenticate": "feedback_app.accounts.second_factor.ReauthenticateForm",
}
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Prospect"
MFA_TOTP_TOLERANCE = 1  # steps of 30 seconds: clocks of phones differ
MFA_ALLOW_UNVERIFIED_EMAIL = True  # addresses are entered by the inviter

# -- sign-in by an OpenID Connect server, off by default

SOCIALACCOUNT_ADAPTER = "feedback_app.feedback.members.oidc.InvitedSignup"
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
# form-action would block a form that redirects to another origin. The request can only sign in:
# the adapter refuses to link an identity.
SOCIALACCOUNT_LOGIN_ON_GET = True
OIDC_NAME = env.str("OIDC_NAME", "single sign-on")
OIDC = {
    "OIDC_SERVER_URL": env.str("OIDC_SERVER_URL", ""),
    "OIDC_CLIENT_ID": env.str("OIDC_CLIENT_ID", ""),
    "OIDC_SECRET": env.str("OIDC_SECRET", ""),
}
SOCIALACCOUNT_PROVIDERS: dict[str, Any] = {}
if any(OIDC.values()):
    if missing := [name for name, value in OIDC.items() if not value]:
        raise ImproperlyConfigured(f"Sign-in by OIDC needs: {', '.join(missing)}.")
    SOCIALACCOUNT_PROVIDERS["openid_connect"] = {
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": "oidc",
                "name": OIDC_NAME,
                "client_id": OIDC["OIDC_CLIENT_ID"],
                "secret": OIDC["OIDC_SECRET"],
                "settings": {"server_url": OIDC["OIDC_SERVER_URL"]},
            }
        ],
    }

# -- mail

vars().update(EMAIL)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "prospect@localhost")
# in front of the links of mail that no request causes
SITE_URL = env.str(
    "SITE_URL",
    f"https://{ALLOWED_HOSTS[0].lstrip('.')}"
    if PRODUCTION
    else f"http://127.0.0.1:{env.int('PORT', 8000)}",
).rstrip("/")

# -- cookies and headers

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# asked by load balancers and Prometheus inside a private network
SECURE_REDIRECT_EXEMPT = [r"^(health|healthz|readyz|metrics)$"]
if PRODUCTION:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", True)
    SECURE_HSTS_SECONDS = 60 * 60 * 24 * 365
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
# the largest body of a request; imports have a limit of their own (web/bodies.py)
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

# -- static files

STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if MODE != "test"
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

if MODE == "test":  # files are served in place, without collectstatic
    WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = True

# -- language and time

LANGUAGE_CODE = "en"
USE_I18N = True
TIME_ZONE = "UTC"
USE_TZ = True

# -- work queue. Rows are the truth: losing the broker loses no work (docs/architecture.md)

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "training.train_run": {"queue": "gpu"},
    "training.measure_influence": {"queue": "gpu"},
    "training.measure_memory": {"queue": "gpu"},
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 2, "socket_timeout": 5}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# our log lines go to standard output: Celery would log each of them as the text of another line
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR / "beat-schedule")
# A message that no worker took before the next tick expires: the tick sends it again.
CELERY_BEAT_SCHEDULE = {
    f"{name}-dispatch": {
        "task": f"{name}.dispatch",
        "schedule": seconds,
        "options": {"expires": seconds},
    }
    for name, seconds in {
        "feedback": 3.0,
        "training": 3.0,
        "serving": 3.0,
        "privacy": 60.0,
        "monitoring": 60.0,
        "api": 600.0,
    }.items()
} | {
    "feedback-reliability": {
        "task": "feedback.renew_reliability",
        "schedule": 60.0,
        "options": {"expires": 60.0},
    }
}

# -- cache: the broker's server, shared by all processes; a miss where it cannot be reached

CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}
if MODE != "test" and HAS_SHARED_CACHE:
    CACHES["default"] = {
        "BACKEND": "feedback_app.config.cache.TolerantRedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "prospect-cache",
        "OPTIONS": {
            "socket_connect_timeout": 0.5,
            "socket_timeout": 0.5,
            # one new connection, for a server that was restarted
            "retry": Retry(NoBackoff(), 1),
        },
    }

# -- claims and training

# work without a heartbeat for this long is taken over
RUN_STALE_SECONDS = env.int("RUN_STALE_SECONDS", 60)
# niceness of the trainer, so that an engine on the same machine has priority
TRAINER_NICE = env.int("TRAINER_NICE", 10)
# what starts the trainer (training/launchers)
TRAINER_LAUNCHER = env.str("TRAINER_LAUNCHER", "process")
# those that a project may choose (Settings of the project)
TRAINER_LAUNCHERS = env.list("TRAINER_LAUNCHERS", default=[TRAINER_LAUNCHER])
for launcher_name in (TRAINER_LAUNCHER, *TRAINER_LAUNCHERS):
    if launcher_name not in ("process", "accelerate", "ray"):
        raise ImproperlyConfigured(
            "TRAINER_LAUNCHER and TRAINER_LAUNCHERS name process, accelerate or ray, "
            f"not {launcher_name!r}."
        )
# the dashboard of a Ray cluster, its token, the interpreter of its nodes, and what a job takes
RAY_ADDRESS = env.str("RAY_ADDRESS", "")
RAY_AUTH_TOKEN = env.str("RAY_AUTH_TOKEN", "")
RAY_PYTHON = env.str("RAY_PYTHON", "python")
RAY_CPUS = env.float("RAY_CPUS", 1.0)
RAY_GPUS = env.float("RAY_GPUS", 1.0)
# the processes that train a run there, each with these CPUs and GPUs
RAY_PROCESSES = env.int("RAY_PROCESSES", 1)
if RAY_PROCESSES < 1 or (
    RAY_PROCESSES > 1 and (RAY_GPUS not in (0, 1) or RAY_CPUS + RAY_GPUS <= 0)
):
    raise ImproperlyConfigured(
        "RAY_PROCESSES is 1 or more. A process uses one GPU: with several of them RAY_GPUS is 1, "
        "or 0 on CPUs with RAY_CPUS above 0."
    )
# worker hours and cost after which a run is ended (training/runs/limits.py); 0: no limit
RUN_MAX_HOURS = env.float("RUN_MAX_HOURS", 0.0)
RUN_MAX_COST = env.float("RUN_MAX_COST", 0.0)
WORKER_HOUR_PRICE = env.float("WORKER_HOUR_PRICE", 0.0)
if min(RUN_MAX_HOURS, RUN_MAX_COST, WORKER_HOUR_PRICE) < 0 or (
    RUN_MAX_COST and not WORKER_HOUR_PRICE
):
    raise ImproperlyConfigured(
        "RUN_MAX_HOURS, RUN_MAX_COST and WORKER_HOUR_PRICE are 0 or more, and RUN_MAX_COST needs "
        "WORKER_HOUR_PRICE."
    )
# processes of one run with accelerate; 0: one for each GPU of the worker
TRAINER_PROCESSES = env.int("TRAINER_PROCESSES", 0)
if TRAINER_PROCESSES < 0:
    raise ImproperlyConfigured("TRAINER_PROCESSES is 0 or more.")
# tools that get the figures of runs (trainer/reports/reports.py)
TRAINER_REPORT_TO = env.list("TRAINER_REPORT_TO", default=[])
if not set(TRAINER_REPORT_TO) <= {"tensorboard", "mlflow", "wandb"}:
    raise ImproperlyConfigured("TRAINER_REPORT_TO names tensorboard, mlflow or wandb.")
# where admins may push versions, or below: hf://OWNER, hf://OWNER/NAME, s3://BUCKET/PREFIX
PUSH_DESTINATIONS = env.list("PUSH_DESTINATIONS", default=[])
if not all(place.startswith(("hf://", "s3://")) for place in PUSH_DESTINATIONS):
    raise ImproperlyConfigured("PUSH_DESTINATIONS names hf://OWNER or s3://BUCKET, with commas.")
# the processes of a run share one copy of the base model
TRAINER_FSDP = env.bool("TRAINER_FSDP", False)

# time zone of schedules whose project has chosen none
SCHEDULE_TIME_ZONE = env.str("SCHEDULE_TIME_ZONE", "UTC")
if SCHEDULE_TIME_ZONE not in available_timezones():
    raise ImproperlyConfigured("SCHEDULE_TIME_ZONE is an IANA name such as Europe/Berlin.")

# days after an erasure until the versions that had used what was erased are deleted
ERASURE_DAYS = env.int("ERASURE_DAYS", 30)
if ERASURE_DAYS < 1:
    raise ImproperlyConfigured("ERASURE_DAYS is 1 or more.")

# days after which the System page's button deletes checkpoints of runs without a version, and
# files of discarded versions (monitoring/retention/rules.py); 0: never
CHECKPOINT_DAYS = env.int("CHECKPOINT_DAYS", 7)
DISCARDED_DAYS = env.int("DISCARDED_DAYS", 30)
if min(CHECKPOINT_DAYS, DISCARDED_DAYS) < 0:
    raise ImproperlyConfigured("CHECKPOINT_DAYS and DISCARDED_DAYS are 0 or more.")
# most bytes of an imported version's files, in millions
ADAPTER_UPLOAD_MB = env.int("ADAPTER_UPLOAD_MB", 512)

# -- models and engines

BASE_MODEL = env.str("BASE_MODEL", "SmolLM2-135M-Instruct")
ENGINE_URL = env.str("ENGINE_URL", "http://127.0.0.1:8001")
# by base model: a URL, or the URLs of several replicas
ENGINES: dict[str, str | list[str]] = env.json("ENGINES", default={}) or {BASE_MODEL: ENGINE_URL}
for engine_urls in ENGINES.values():
    for engine_url in [engine_urls] if isinstance(engine_urls, str) else engine_urls:
        if urlsplit(engine_url).scheme not in ("http", "https"):
            raise ImproperlyConfigured(f"ENGINES: {engine_url!r} is not an http(s) URL.")
# base models whose engines call tools: vLLM with --enable-auto-tool-choice, or another server of
# OpenAI's protocol
ENGINE_TOOLS = env.list("ENGINE_TOOLS", default=[])
# base models whose engines keep to a JSON schema (`response_format`), as vLLM does
ENGINE_JSON = env.list("ENGINE_JSON", default=[])
# A request fails when its engine has sent nothing for this long; answers may take longer
ENGINE_SILENCE_SECONDS = env.float("ENGINE_SILENCE_SECONDS", 120.0)

# answers that may be generated at the same time; more get 429
ANSWERS_PER_PERSON = env.int("ANSWERS_PER_PERSON", 6)
ANSWERS_PER_TOKEN = env.int("ANSWERS_PER_TOKEN", 32)
ANSWERS_PER_LINK = env.int("ANSWERS_PER_LINK", 16)  # of all visitors together

# -- the gateway

API_REQUESTS_PER_MINUTE = env.int("API_REQUESTS_PER_MINUTE", 120)  # per token

# -- webhooks

# private networks that webhooks may reach; "10.1.0.0/16"
WEBHOOK_NETWORKS = env.list("WEBHOOK_NETWORKS", default=[])

# -- judge models of gates

# networks that are not public in which judge models may be; "127.0.0.0/8" for this machine
JUDGE_NETWORKS = env.list("JUDGE_NETWORKS", default=[])
# how long a judge may send nothing before a question has failed
JUDGE_SILENCE_SECONDS = env.float("JUDGE_SILENCE_SECONDS", 120.0)

# -- error reports and traces, off by default (monitoring/error_reports.py, tracing.py)

SENTRY_DSN = env.str("SENTRY_DSN", "")
OTEL_EXPORTER_OTLP_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "")

# -- logs

LOG_RENDERER: structlog.typing.Processor = (
    structlog.dev.ConsoleRenderer(colors=False)
    if sys.stderr.isatty()
    else structlog.processors.JSONRenderer()
)
LOG_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
]
structlog.configure(
    processors=[*LOG_PROCESSORS, structlog.processors.dict_tracebacks, LOG_RENDERER],
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # lines of Django, Celery and other libraries: the same format, with the request id
    "formatters": {
        "structured": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": [*LOG_PROCESSORS, structlog.stdlib.add_logger_name],
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                LOG_RENDERER,
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "structured"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {"httpx": {"level": "WARNING"}, "httpcore": {"level": "WARNING"}},
}
