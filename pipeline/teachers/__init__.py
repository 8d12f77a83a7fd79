"""Teachers: trained by the recipe, or loaded from the person's own files; see ``loading.load_teacher``."""
