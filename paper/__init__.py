"""The paper: its tables, figures, scaling laws and critic, built from runs of the library, which never imports this."""
