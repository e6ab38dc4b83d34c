"""What operators look at over HTTP: /metrics, /livez and /readyz."""
