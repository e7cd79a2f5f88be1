"""The places where a service can run, one module each. They do not know each other."""
