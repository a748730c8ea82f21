"""Settings of the tests. Of the developer's own, only `DATABASE_URL` counts: it names the database.

What is set here in the environment is for the programs that tests start as well; those use the real settings.
"""

import os
import tempfile
from pathlib import Path

_OURS = (
    "ATOM_SAAS_", "FEED_", "AUDIT_", "RUNS_", "COMMANDS_", "DEAD_LETTERS_", "DJANGO_", "LOG_", "METRICS_", "HEALTH_",
)  # fmt: skip
for _name in [name for name in os.environ if name.startswith(_OURS) or name.upper().endswith("_PROXY")]:
    del os.environ[_name]
os.environ["DJANGO_ENV_FILE"] = ""
os.environ["DJANGO_SECRET_KEY"] = "of-the-tests-and-of-nothing-else-0123456789-abcdefgh"
os.environ["DJANGO_SETTINGS_MODULE"] = "atomproject.settings"
# The channel layer is in the process unless a test asks for Redis by `redis_url`.
os.environ.pop("REDIS_URL", None)

from atomproject.settings import *  # noqa: E402, F403
from atomproject.settings import DATABASES  # noqa: E402

# Named after the process, so that runs side by side do not share one. A file: threads and programs find it.
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"mirror-tests-{os.getpid()}.sqlite3")}
else:
    DATABASES["default"]["TEST"] = {"NAME": f"test_{DATABASES['default']['NAME']}_{os.getpid()}"}
    # What a crash of the server would lose does not matter here, and a commit is twenty times as fast.
    DATABASES["default"].setdefault("OPTIONS", {})["options"] = "-c synchronous_commit=off"

# Hashing is slow on purpose; no password of a test is worth it.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
