"""What machines and users do to runs, done to real ones and counted: ``make faults``."""
