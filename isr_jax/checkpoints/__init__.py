"""Run folders, single files, and what a MODEL is."""
