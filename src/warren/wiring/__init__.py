"""Puts the parts together: the only place that knows every one of them."""
