"""What Warren says about itself: structured logs and Prometheus numbers."""
