"""The paths of monitoring. They have no slash at their end, as is usual for health checks."""

from django.urls import path

from marketplace_sync.monitoring import views

app_name = "monitoring"
urlpatterns = [
    path("health/live", views.live, name="live"),
    path("health/ready", views.ready, name="ready"),
    path("health/sync", views.sync, name="sync"),
    path("metrics", views.MetricsView.as_view(), name="metrics"),
]
