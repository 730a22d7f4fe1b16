"""What to do: the job file as a value, read and judged before anything is started."""
