"""Ray clusters: joining one, starting one, sending jobs to one."""
