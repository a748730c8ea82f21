"""The URLs of the overview's parts and figures, beside the admin's own URLs."""

from django.contrib import admin
from django.urls import path

from marketplace_sync.admin import charts, overview
from marketplace_sync.admin.sites import site_page

app_name = "overview"
urlpatterns = [
    site_page(path(f"{name}/", admin.site.admin_view(view), name=name))
    for name, view in (("now", overview.current_parts), ("figures", charts.figures), ("names", overview.names))
]
