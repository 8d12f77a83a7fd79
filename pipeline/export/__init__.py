"""From torch modules to the files that runtimes load: one file per block or network, and its parity."""
