"""The model gateway: routes, providers, fallback, breakers, limits, prices, kept answers, offline models."""
