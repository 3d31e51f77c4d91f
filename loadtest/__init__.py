"""Open-loop load generator for the hook API: scenarios, measurement, report, audit."""
