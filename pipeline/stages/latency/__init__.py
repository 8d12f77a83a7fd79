"""What the targets say of the space before anything is searched."""
