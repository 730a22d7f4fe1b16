"""Searching: which values of a job's keys learn best."""
