"""The HTTP side: the API under `/api/v1`, one file per noun, health and metrics, and the dashboard."""
