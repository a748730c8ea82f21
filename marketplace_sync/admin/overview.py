"""Where the front page's parts are, beside the admin's own addresses."""

from django.contrib import admin
from django.urls import path

from marketplace_sync.admin import charts, dashboard

app_name = "overview"
urlpatterns = [
    path("now/", admin.site.admin_view(dashboard.now), name="now"),
    path("figures/", admin.site.admin_view(charts.figures), name="figures"),
    path("names/", admin.site.admin_view(dashboard.names), name="names"),
]
