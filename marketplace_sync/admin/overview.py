"""Where the front page's parts are, beside the admin's own addresses."""

from django.contrib import admin
from django.urls import path

from marketplace_sync.admin import charts, dashboard
from marketplace_sync.admin.sites import on_site

app_name = "overview"
urlpatterns = [
    on_site(path(f"{name}/", admin.site.admin_view(view), name=name))
    for name, view in (("now", dashboard.now), ("figures", charts.figures), ("names", dashboard.names))
]
