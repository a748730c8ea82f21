"""Django's settings. Everything that differs between machines comes from the environment or `.env`."""

import os
from pathlib import Path

from atomproject.env import Environment
from marketplace_sync import conf, logs

BASE_DIR = Path(__file__).resolve().parent.parent

# DJANGO_ENV_FILE names another file than .env; empty: none is read.
_dotenv = Environment(os.environ, None).str("DJANGO_ENV_FILE", default=".env")
env = Environment(os.environ, BASE_DIR / _dotenv if _dotenv else None)

# The marketplace's settings, as they are written; `conf.load_config` reads them.
for _setting in conf.SETTINGS:
    globals()[_setting.name] = env.raw(_setting.name)

DEBUG = env.flag("DJANGO_DEBUG")
ALLOWED_HOSTS = env.hosts()
SECRET_KEY = env.secret_key(BASE_DIR / ".secret_key")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "marketplace_sync.apps.MarketplaceSyncConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "atomproject.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "atomproject.urls"
WSGI_APPLICATION = "atomproject.wsgi.application"
ASGI_APPLICATION = "atomproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
CHANNEL_LAYERS = env.channel_layers()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

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

if env.flag("DJANGO_HTTPS"):
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 31_536_000  # a year, what browsers' preload lists ask for
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

REST_FRAMEWORK = {
    # No anonymous access; what is open says so itself.
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
}

LOGGING_CONFIG = "marketplace_sync.logs.configure"
LOGGING = logs.logging_config(
    level=env.choice("LOG_LEVEL", logs.LEVELS), as_json=env.choice("LOG_FORMAT", ("console", "json")) == "json"
)

# For the system checks: what could not be read, and every name there is, to find misspelt ones.
ENVIRONMENT_FAULTS = tuple(env.faults)
ENVIRONMENT_NAMES = env.names()
