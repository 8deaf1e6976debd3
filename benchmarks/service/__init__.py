"""The service under twice the requests it can answer."""
