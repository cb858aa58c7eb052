"""What an operator watches: readiness, metrics, request ids in logs, error reports and traces."""
