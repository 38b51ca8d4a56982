"""Builds the paper's tables, figures, scaling laws and critic from runs of the library, which never imports this."""
