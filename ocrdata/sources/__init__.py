"""Sources: adapters from somebody's format to samples. `base` says what a source is."""
