"""Published methods that search a student for a teacher; each is a package with one function to call."""
