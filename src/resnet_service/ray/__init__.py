"""The service and its batch jobs on a Ray cluster; no other package imports Ray."""
