"""Where each path leads."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("marketplace_sync.api.urls")),
]

handler500 = "marketplace_sync.api.errors.answer_server_error"
