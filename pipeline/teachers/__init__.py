"""Teachers: trained by the recipe, or loaded from the person's own files; see ``loading.load_teacher``.

Nothing is imported here that needs torch, since recipes are read before it is wanted.
"""

from pipeline.teachers.config import TeacherConfig

__all__ = ["TeacherConfig"]
