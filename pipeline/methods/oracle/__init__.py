"""KDAS: architecture search with oracle distillation (1911.13019); see docs/methods/oracle.md."""
