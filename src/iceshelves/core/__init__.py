"""What every layer stands on: errors, units, time, secrets, bounded parsing, settings, subprocesses."""
