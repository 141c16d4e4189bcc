"""PyTorch state dicts to parameters and back."""
