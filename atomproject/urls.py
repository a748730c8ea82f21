"""The URLs of the project."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from atomproject.login import login_page

urlpatterns = [
    # The root URL is for people.
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/login/", login_page),  # before the admin's own login, whose URL name resolves to it
    path("admin/overview/", include("marketplace_sync.admin.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("marketplace_sync.api.urls")),
    path("", include("marketplace_sync.monitoring.urls")),
]

handler400 = "marketplace_sync.web.errors.bad_request"
handler403 = "marketplace_sync.web.errors.forbidden"
handler404 = "marketplace_sync.web.errors.not_found"
handler500 = "marketplace_sync.web.errors.server_error"
