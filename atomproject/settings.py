"""Django's settings. Everything that differs between machines comes from the environment or `.env`."""

from pathlib import Path

from atomproject import bodies
from atomproject.env import read_environment
from marketplace_sync import conf, logs, postgres
from marketplace_sync.setting import Kind

BASE_DIR = Path(__file__).resolve().parent.parent

env = read_environment(BASE_DIR)

# The marketplace's settings, as they are written; `conf.load_config` parses them.
for _setting in conf.SETTINGS:
    # None distinguishes unset from empty where an empty value counts.
    _raw = None if _setting.empty_counts and _setting.name not in env.ENVIRON else env.raw(_setting.name)
    # A proxy's URL may contain a password, and its name does not make Django's error page hide it.
    globals()[_setting.name] = logs.Secret(_raw or "") if _setting.kind is Kind.PROXY else _raw

DEBUG = env.flag("DJANGO_DEBUG")
ALLOWED_HOSTS = env.hosts()
SECRET_KEY = env.secret_key(BASE_DIR / ".secret_key")

INSTALLED_APPS = [
    "unfold",  # before the admin, whose templates and site it replaces
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "knox",
    "marketplace_sync.apps.MarketplaceSyncConfig",
    "atomproject",  # its admin.py
]

MIDDLEWARE = [
    "atomproject.headers.security_headers",  # outermost: responses of the other middleware have them too
    "django.middleware.security.SecurityMiddleware",
    "atomproject.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "marketplace_sync.web.middleware.FailedRequestMiddleware",  # innermost: what a view raises reaches it first
]
CSRF_FAILURE_VIEW = "marketplace_sync.web.errors.form_refused"

# The same for WSGI and for Django's own reading of a body.
DATA_UPLOAD_MAX_MEMORY_SIZE = bodies.MAX_BODY_BYTES

DEFAULT_EXCEPTION_REPORTER = "atomproject.debug_pages.SafeExceptionReporter"

ROOT_URLCONF = "atomproject.urls"
WSGI_APPLICATION = "atomproject.wsgi.application"
ASGI_APPLICATION = "atomproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Before the packages' own templates, some of which it replaces.
        "DIRS": [BASE_DIR / "atomproject" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.database(BASE_DIR)}
# Of web processes: `marketplace_sync.web.deadline`.
DATABASE_STATEMENT_SECONDS = env.number("DATABASE_STATEMENT_SECONDS")
postgres.set_up_sessions()
CHANNEL_LAYERS = env.channel_layers()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTHENTICATION_BACKENDS = ["atomproject.login.LimitedLogin", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
# Static files are served out of the packages: no collectstatic step, with or without DEBUG.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "atomproject.static.Storage"},
}

SESSION_ENGINE = "atomproject.sessions"
# Cookies keep Django's defaults too: SameSite=Lax both, and scripts see no session.
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
if env.flag("DJANGO_HTTPS"):
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^(.*/)?health/[a-z]+$"]  # probes bypass the proxy
    SECURE_HSTS_SECONDS = 31_536_000  # a year
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    # "preload" would let anybody put the domain on browsers' built-in lists; removal takes months. Its owner decides.
    SILENCED_SYSTEM_CHECKS = ["security.W021"]
if env.flag("DJANGO_BEHIND_PROXY"):
    # A client that reaches this process without the proxy could claim HTTPS, so the header is not trusted by default.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# Everything else of the API is set in `marketplace_sync.api.defaults`, independent of the project.
REST_FRAMEWORK = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Marketplace mirror",
    "DESCRIPTION": "A local mirror of a remote marketplace: its catalogue, its changes, and its controls.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "marketplace_sync.api.schema.add_refusals",
    ],
    "ENUM_NAME_OVERRIDES": {
        "CommandState": "marketplace_sync.models.Command.State",
        "RunState": "marketplace_sync.models.SyncRun.State",
        "DeadLetterState": "marketplace_sync.models.DeadLetter.State",
        "ConnectionState": "marketplace_sync.models.WebSocketState.State",
        "DeadLetterSource": "marketplace_sync.models.DeadLetter.Source",
        "ChangeSource": "marketplace_sync.models.FeedChange.Source",
    },
}

# Agents' keys, see `marketplace_sync.models.agents`.
KNOX_TOKEN_MODEL = "marketplace_sync.AgentKey"
REST_KNOX = {
    "TOKEN_MODEL": KNOX_TOKEN_MODEL,
    "TOKEN_PREFIX": "mirror_",  # so that secret scanners recognise a leaked key
    "TOKEN_TTL": None,  # each key has its own expiry
    "AUTH_HEADER_PREFIX": "Bearer",
}
# knox's own table would stay empty, and its foreign key would keep PostgreSQL from truncating the users' table.
MIGRATION_MODULES = {"knox": None}

# Django's own defaults lead to pages that do not exist here.
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

# The theme of the admin; its pages are in `marketplace_sync.admin`.
UNFOLD = {
    "SITE_TITLE": "Marketplace mirror",
    "SITE_HEADER": "Marketplace mirror",
    "SITE_SYMBOL": "sync_alt",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "marketplace_sync.admin.navigation.favicon"},
    ],
    "SITE_URL": None,
    "LOGIN": {"form": "atomproject.login.LoginForm"},
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "marketplace_sync.admin.overview.overview_context",
    "STYLES": ["marketplace_sync.admin.navigation.stylesheet"],
    "SIDEBAR": {"navigation": "marketplace_sync.admin.navigation.sidebar"},
    "COLORS": {
        "primary": {
            "50": "oklch(97.1% .013 233)", "100": "oklch(94.4% .028 233)", "200": "oklch(89% .058 232)",
            "300": "oklch(81.5% .095 231)", "400": "oklch(72.5% .13 232)", "500": "oklch(63% .14 236)",
            "600": "oklch(53.5% .13 240)", "700": "oklch(46% .115 242)", "800": "oklch(39.5% .095 243)",
            "900": "oklch(33.5% .075 245)", "950": "oklch(25% .06 246)",
        },
    },
}  # fmt: skip

LOGGING_CONFIG = "marketplace_sync.logs.configure"
LOGGING = logs.logging_config(
    level=env.choice("LOG_LEVEL", logs.LEVELS), as_json=env.choice("LOG_FORMAT", ("console", "json")) == "json"
)

# The daemon reads a token in `.env` again while it runs; the environment of a process cannot change.
ENVIRONMENT_TOKEN = env.rereader("ATOM_SAAS_API_TOKEN")

# For the system checks: values that could not be read, and all names, among which misspelt ones are found.
ENVIRONMENT_PROBLEMS = tuple(env.problems)
ENVIRONMENT_NAMES = env.names()
