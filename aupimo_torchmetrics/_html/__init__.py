"""Pages to look at in a browser: one file each, which needs no server and no network."""
