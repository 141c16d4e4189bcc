"""Run folders, single files, and restoring a generator from whatever a MODEL is."""
