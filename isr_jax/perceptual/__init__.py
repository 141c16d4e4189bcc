"""Networks that others trained, and what is measured by their features."""
