"""Loaded before Django's settings (`-p tests.environment`): the suite never uses var/."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

var = tempfile.mkdtemp(prefix="prospect-test-")
atexit.register(shutil.rmtree, var, ignore_errors=True)
os.environ |= {
    "PROSPECT_ENV": "test",
    "PROSPECT_VAR": var,
    "SECRET_KEY": "only-for-tests-0123456789-0123456789",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    # browser tests drive the live server from Playwright's event loop
    "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
}
# a test that shares one transaction with the code hides its rows from the heartbeat's connection:
# the first heartbeat is due after such a test has ended
os.environ["RUN_STALE_SECONDS"] = "240"
# keep compiled code between sessions: each would compile for a minute otherwise
os.environ.setdefault("PROSPECT_CACHE_DIR", str(Path.home() / ".cache" / "prospect" / "tests"))
for name in ("DEBUG", "ARTIFACT_ROOT", "ENGINES", "ENGINE_URL", "REDIS_URL"):
    os.environ.pop(name, None)
