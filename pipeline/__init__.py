"""Teachers, data, spaces, search, distillation, export, compilation, bundles and the command line."""
