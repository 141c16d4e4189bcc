"""The page of `isr demo`."""
