"""The Hydra configs, importable as `ladder_cli.conf` so that they are found after every kind of install."""
