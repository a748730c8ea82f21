"""Where each path leads."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from atomproject.login import login_page

urlpatterns = [
    # Whoever types the bare address is a person.
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/login/", login_page),  # before the admin's own, under whose name it is found
    path("admin/overview/", include("marketplace_sync.admin.urls")),
    path("admin/", admin.site.urls),
    path("api/", include("marketplace_sync.api.urls")),
    path("", include("marketplace_sync.monitoring.urls")),
]

handler400 = "marketplace_sync.web.errors.bad_request"
handler403 = "marketplace_sync.web.errors.forbidden"
handler404 = "marketplace_sync.web.errors.not_found"
handler500 = "marketplace_sync.web.errors.server_error"
