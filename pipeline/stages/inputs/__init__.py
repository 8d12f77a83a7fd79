"""What a run starts from: data, teacher, space."""
